// A file that describes a cluster, which need not exist: machines and the network between them.
//
//   {"machines": [{"name": "attic", "device": "gtx-1050-ti", "count": 2},
//                 {"name": "desk", "memory": "12GiB", "gb_per_s": 30}],
//    "network": "1gbe",
//    "links": [{"between": ["desk", "attic 1"], "link": "wifi"},
//              {"between": ["coordinator", "desk"], "link": {"latency_us": 20, "mb_per_s": 5000}}]}
//
// A machine is a device of the library, or a memory and a speed, or a device with either changed;
// with a count, its machines are called "attic 1", "attic 2". "prefill_gb_per_s", "disk_gb_per_s"
// and "layer_us" can be given too (see WorkerProfile). "host" describes, like a machine, the memory beside the card of
// each (`renga worker --host-memory`): a spare worker "attic 1 host" over the link "same-machine".
// Links run both ways.
#ifndef RENGA_PARTITION_CLUSTER_FILE_H_
#define RENGA_PARTITION_CLUSTER_FILE_H_

#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "partition/link_profile.h"
#include "partition/plan.h"

namespace renga::partition {

struct Cluster {
  std::vector<WorkerProfile> workers;
  LinkTable links;
};

inline constexpr int64_t kMaxClusterFileBytes = int64_t{1} << 20;

// kInvalidArgument says what is wrong with which machine or link, keys that mean nothing included; kNotFound for a device or link
// that the library lacks.
absl::StatusOr<Cluster> ParseCluster(absl::string_view json);

}  // namespace renga::partition

#endif  // RENGA_PARTITION_CLUSTER_FILE_H_

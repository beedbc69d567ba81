// The machines that `renga plan` plans for: named on the command line, described in a file, those
// of a running cluster as they were measured, or this one.
#ifndef RENGA_CLI_PLANNED_CLUSTER_H_
#define RENGA_CLI_PLANNED_CLUSTER_H_

#include <string>
#include <vector>

#include "CLI/App.hpp"
#include "absl/status/statusor.h"
#include "model/footprint.h"
#include "nlohmann/json.hpp"
#include "partition/cluster_file.h"

namespace renga::cli {

struct PlannedClusterFlags {
  std::vector<std::string> workers;  // "4GiB@20"
  std::string file;                  // as partition::ParseCluster reads; empty: none
  std::string running;               // HOST:PORT of a coordinator's HTTP side; empty: none
  std::string api_key;
  std::string network;  // of the device library; empty: what the file says
};

struct PlannedCluster {
  partition::Cluster cluster;
  // Sentences for people: what was taken for granted, and what was measured.
  std::vector<std::string> remarks;
};

// Adds --worker, --cluster, --running, --api-key and --network.
void AddPlannedClusterFlags(CLI::App& command, PlannedClusterFlags& flags);

// Without flags this machine, measured in half a second, with its disk too if `lazy`. What nobody
// said of several machines is assumed, and remarked: 10 GB/s of weights, and links of 1 GbE.
// `footprint` is of the model that is planned, whose formats decide how fast machines are.
// kInvalidArgument for flags that make no sense; errors of the file, of the library and of
// FetchStatus.
absl::StatusOr<PlannedCluster> ReadPlannedCluster(const PlannedClusterFlags& flags,
                                                  const model::ModelFootprint& footprint,
                                                  bool lazy);

// The members and links of a status (FetchStatus) that are there, as planners see them.
// kInvalidArgument when it can't be read; kFailedPrecondition when there are no workers.
absl::StatusOr<partition::Cluster> ClusterOfStatus(const nlohmann::json& status,
                                                   const model::ModelFootprint& footprint);

}  // namespace renga::cli

#endif  // RENGA_CLI_PLANNED_CLUSTER_H_

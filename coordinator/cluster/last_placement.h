// Which part each worker held last. Speeds are measured anew whenever a worker starts, and two
// measurements never agree; planning from them alone would move weights around at every restart.
// So the last placement is offered to the planner again, also after the coordinator's own restart.
#ifndef RENGA_COORDINATOR_CLUSTER_LAST_PLACEMENT_H_
#define RENGA_COORDINATOR_CLUSTER_LAST_PLACEMENT_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "coordinator/cluster/membership.h"
#include "model/shard_spec.h"

namespace renga::cluster {

struct LastShard {
  std::string worker_id;
  std::string worker_name;
  model::ShardSpec spec;
  // As in WorkerOffer: what the plan was made with, or what the worker has turned out to do since.
  double weight_bytes_per_second = 0;
  double disk_bytes_per_second = 0;
  double layer_us = 0;
  std::vector<KernelSpeed> kernels = {};
  int64_t replica = 0;
};

using LastPlacement = std::vector<LastShard>;

// The shard that `member` held: its own, or that of a worker of its name which is not among
// `members` (it has enrolled anew). Null when there is none.
const LastShard* FindLastShard(const LastPlacement& last, const Member& member,
                               const std::vector<Member>& members);

// Takes over what was measured of members while they ran and is confirmed, where it differs by more
// than a seventh from what `last` has: such a worker has become slower, or faster, and the next
// plan should know, also when the worker or the coordinator starts anew before that. Whether
// anything changed.
bool TakeConfirmedSpeeds(const std::vector<Member>& members, LastPlacement& last);

// The members with everything measured of them as `last` has it, where the new speed
// of their weights is within a factor of eight of it: then it is the same machine, busier or less
// busy.
std::vector<Member> WithSettledSpeeds(std::vector<Member> members, const LastPlacement& last);

// `path` keeps one placement as JSON. Reading: kNotFound when there is none, kDataLoss when it is
// damaged.
absl::StatusOr<LastPlacement> ReadLastPlacement(const std::string& path);
absl::Status WriteLastPlacement(const std::string& path, const LastPlacement& last);

}  // namespace renga::cluster

#endif  // RENGA_COORDINATOR_CLUSTER_LAST_PLACEMENT_H_

// Plans for a model that is larger than what the workers offer: each holds a part of its weights
// and reads the rest from its disk for every step (model/residency_plan.h).
#ifndef RENGA_PARTITION_DISK_PLAN_H_
#define RENGA_PARTITION_DISK_PLAN_H_

#include <optional>
#include <vector>

#include "partition/plan.h"
#include "partition/shard_costs.h"

namespace renga::partition {

// Taken for a disk whose speed nobody has measured: a solid-state disk on SATA.
inline constexpr double kAssumedDiskBytesPerSecond = 5e8;

// The workers as if each offered also what its disk reads in some time, the shortest in which the
// model fits: then the slowest disk takes as little as can be. nullopt when a worker would not even
// hold what has to stay in memory (keys and values, scratch, a part of the output matrix, the
// buffers read into), however the layers are divided.
std::optional<std::vector<WorkerProfile>> StretchByDisks(const ShardCosts& bytes,
                                                         const std::vector<WorkerProfile>& workers,
                                                         const PlanRequest& request);

// Writes into a plan for stretched workers what each of `workers` reads from disk, what it then
// holds, and how long tokens take. A worker's disk reads while it computes, and fills its buffers
// while the others do. Workers of one machine are taken to have one disk: each of them measured all
// of its speed.
void AddDisks(const ShardCosts& bytes, const std::vector<WorkerProfile>& workers,
              const PlanRequest& request, Plan& plan);

}  // namespace renga::partition

#endif  // RENGA_PARTITION_DISK_PLAN_H_

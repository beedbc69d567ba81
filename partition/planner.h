// The planner: contiguous layers over workers or tensor-parallel groups of them, by their measured
// speeds and links, within the memory each one offers for weights, KV cache and scratch. Pure
// functions: equal input, equal plan.
#ifndef RENGA_PARTITION_PLANNER_H_
#define RENGA_PARTITION_PLANNER_H_

#include <optional>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "model/architecture.h"
#include "model/footprint.h"
#include "model/shard_spec.h"
#include "partition/plan.h"

namespace renga::partition {

// The sizes every stage of a plan for `request` shares. `request` must have passed MakePlan's
// checks.
model::RuntimeLimits LimitsOf(const PlanRequest& request);

// kInvalidArgument for a request, profile or link that makes no sense, kFailedPrecondition without
// workers.
absl::Status CheckPlanInput(const model::Model& model, const model::ModelFootprint& footprint,
                            const std::vector<WorkerProfile>& workers, const PlanRequest& request);

// Chooses the workers, their order, groups and slices, layer ranges and head blocks. kOneStream
// minimises the time of a token; kManyStreams the time of the slowest worker, then that of a token,
// and uses whoever does not make it much slower. The idle ones are named with the reason. Exact up
// to some twelve workers and for many more of few kinds (Plan::exact); above that a bounded search,
// with a time that no plan can beat.
//
// kResourceExhausted when nothing fits: one sentence with what is needed and offered, who lacks how
// much, and which --memory, --context or how many more workers would do. CheckPlanInput's errors.
//
// Spare workers are idle in every plan that is possible without them.
//
// With request.lazy, a plan in which workers read from their disks what nobody has room for.
absl::StatusOr<Plan> MakePlan(const model::Model& model, const model::ModelFootprint& footprint,
                              const std::vector<WorkerProfile>& workers,
                              const PlanRequest& request);

// The same plan, without a sentence where there is none. The input must have passed CheckPlanInput.
std::optional<Plan> FindPlan(const model::Model& model, const model::ModelFootprint& footprint,
                             const std::vector<WorkerProfile>& workers, const PlanRequest& request);

// The plan of a request that is lazy; for one that is not, what it would get. nullopt when even
// that cannot be. The input must have passed CheckPlanInput.
std::optional<Plan> MakeDiskPlan(const model::Model& model, const model::ModelFootprint& footprint,
                                 const std::vector<WorkerProfile>& workers,
                                 const PlanRequest& request);

}  // namespace renga::partition

#endif  // RENGA_PARTITION_PLANNER_H_

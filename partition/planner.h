// The first planner: contiguous layers over workers in proportion to their speed, within the memory
// each one offers for weights, KV cache and scratch. Pure functions: equal input, equal plan.
#ifndef RENGA_PARTITION_PLANNER_H_
#define RENGA_PARTITION_PLANNER_H_

#include <vector>

#include "absl/status/statusor.h"
#include "model/architecture.h"
#include "model/footprint.h"
#include "model/shard_spec.h"
#include "partition/plan.h"

namespace renga::partition {

// The sizes every stage of a plan for `request` shares. `request` must have passed MakePlan's
// checks.
model::RuntimeLimits LimitsOf(const PlanRequest& request);

// Minimises the time of the slowest worker, then the sum over workers. Every worker that can hold a
// layer gets one, unless there are more of them than layers (or than asked for), or it is so slow
// that the plan is much better without it; the idle ones are named with the reason.
//
// kResourceExhausted when nothing fits: one sentence with what is needed and offered, who lacks how
// much, and which --memory, --context or how many more workers would do. kInvalidArgument for a
// request or profile that makes no sense, kFailedPrecondition without workers.
absl::StatusOr<Plan> MakePlan(const model::Model& model, const model::ModelFootprint& footprint,
                              const std::vector<WorkerProfile>& workers,
                              const PlanRequest& request);

}  // namespace renga::partition

#endif  // RENGA_PARTITION_PLANNER_H_

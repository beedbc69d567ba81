// Why a plan was refused, with the numbers a user needs to change that.
#ifndef RENGA_PARTITION_REFUSAL_H_
#define RENGA_PARTITION_REFUSAL_H_

#include <vector>

#include "absl/status/status.h"
#include "model/architecture.h"
#include "model/footprint.h"
#include "partition/plan.h"

namespace renga::partition {

// The kResourceExhausted of a request that MakePlan has found not to fit: what is needed and what
// is offered, which worker lacks how much, and what would fit: --memory on each of these workers,
// --context, or how many more workers like the largest.
absl::Status ExplainRefusal(const model::Model& model, const model::ModelFootprint& footprint,
                            const std::vector<WorkerProfile>& workers, const PlanRequest& request);

}  // namespace renga::partition

#endif  // RENGA_PARTITION_REFUSAL_H_

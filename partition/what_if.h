// The plan, or all replicas, beside those that one change of the cluster would give.
#ifndef RENGA_PARTITION_WHAT_IF_H_
#define RENGA_PARTITION_WHAT_IF_H_

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "model/architecture.h"
#include "model/footprint.h"
#include "partition/plan.h"
#include "partition/replicas.h"

namespace renga::partition {

struct Change {
  std::string name;   // "without 'attic 2'", "one more 'desk'", "links twice as fast"
  bool fits = false;  // whether there is a plan then
  double ms = 0;      // TimeToCompare
  size_t replicas = 0;
};

// What changes are compared by, in ms: of a token where one stream counts, or else of a step, as
// often as all replicas together answer one while their stages are busy.
double TimeToCompare(const Replicas& replicas, Objective objective);

// Leaving out each worker that the plan uses (machines of one kind once, at most kMaxNamed kinds),
// one more of each kind, and links of half the latency and twice the bandwidth. Times are those of
// complete plans, with as many replicas as the request then gets. Errors are MakePlan's for a
// request that makes no sense.
absl::StatusOr<std::vector<Change>> ExploreChanges(const model::Model& model,
                                                   const model::ModelFootprint& footprint,
                                                   const std::vector<WorkerProfile>& workers,
                                                   const PlanRequest& request, const Replicas& now);

}  // namespace renga::partition

#endif  // RENGA_PARTITION_WHAT_IF_H_

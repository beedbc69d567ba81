// The plan, or all replicas, beside those that one change of the cluster would give.
#ifndef RENGA_PARTITION_WHAT_IF_H_
#define RENGA_PARTITION_WHAT_IF_H_

#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "model/architecture.h"
#include "model/footprint.h"
#include "partition/link_profile.h"
#include "partition/plan.h"
#include "partition/replicas.h"

namespace renga::partition {

// A link as it is, and as it would be, one way.
struct LinkChange {
  std::string one;  // a worker's id, or "coordinator"
  std::string other;
  LinkProfile now;
  LinkProfile then;
};

struct Change {
  // "without 'attic 2'", "one more like 'desk'", "links twice as fast", "the link 'desk' - 'attic'
  // twice as fast"
  std::string name;
  bool fits = false;  // whether there is a plan then
  double ms = 0;      // TimeToCompare
  size_t replicas = 0;
  std::optional<LinkChange> link = std::nullopt;  // where it is one that changes
};

// What changes are compared by, in ms: of a token where one stream counts, or else of a step, as
// often as all replicas together answer one while their stages are busy.
double TimeToCompare(const Replicas& replicas, Objective objective);

// Leaving out each worker that the plan uses (machines of one kind once, at most kMaxNamed kinds),
// one more of each kind, and links of half the latency and twice the bandwidth: all of them, and
// the one that then gives most. That one is looked for among the links that the plan uses: each is
// priced with everything where it is (faster_link.h), and the first three that give a two hundredth
// are planned with anew; "any one link twice as fast" where there are none. Times are those of
// complete plans, with as many replicas as the request then gets. Errors are MakePlan's for a
// request that makes no sense.
absl::StatusOr<std::vector<Change>> ExploreChanges(const model::Model& model,
                                                   const model::ModelFootprint& footprint,
                                                   const std::vector<WorkerProfile>& workers,
                                                   const PlanRequest& request, const Replicas& now);

}  // namespace renga::partition

#endif  // RENGA_PARTITION_WHAT_IF_H_

// A time that no plan can beat, for searches that do not look at every plan.
#ifndef RENGA_PARTITION_LOWER_BOUND_H_
#define RENGA_PARTITION_LOWER_BOUND_H_

#include "partition/cost_model.h"
#include "partition/exact_search.h"

namespace renga::partition {

// In ms, of what `rules.objective` minimises. A relaxation: layers may be cut anywhere, order costs
// nothing, each hop is the cheapest of all, groups divide their work evenly by speed.
double LowerBound(const CostModel& costs, const SearchRules& rules);

}  // namespace renga::partition

#endif  // RENGA_PARTITION_LOWER_BOUND_H_

// Which link a plan depends on most.
#ifndef RENGA_PARTITION_FASTER_LINK_H_
#define RENGA_PARTITION_FASTER_LINK_H_

#include <vector>

#include "partition/plan.h"
#include "partition/replicas.h"
#include "partition/shard_costs.h"

namespace renga::partition {

// Half the latency, twice the bandwidth.
LinkProfile TwiceAsFast(LinkProfile link);
// The link from one machine to another; either may be kCoordinator.
LinkProfile LinkBetween(const LinkTable& links, int from, int to);
// The table with the link between the two twice as fast, in both directions.
LinkTable WithFasterLink(const LinkTable& links, int one, int other);

// A link over which the plans send something in every step.
struct UsedLink {
  int one = 0;  // the end that comes first on the way of a step; kCoordinator is one too
  int other = 0;
  // TimeToCompare (what_if.h) of the same plans, nothing placed anew, were it twice as fast.
  double ms = 0;
};
// Those that would give most first, and of equal ones those that come first in the plans. Of
// unused links nothing is known so soon: a search would have to be made for each.
std::vector<UsedLink> RankUsedLinks(const ShardCosts& bytes,
                                    const std::vector<WorkerProfile>& workers,
                                    const PlanRequest& request, const Replicas& now);

}  // namespace renga::partition

#endif  // RENGA_PARTITION_FASTER_LINK_H_

// A good lineup for clusters that are too large and too mixed to look at every one of them.
#ifndef RENGA_PARTITION_LOCAL_SEARCH_H_
#define RENGA_PARTITION_LOCAL_SEARCH_H_

#include <optional>

#include "partition/exact_search.h"

namespace renga::partition {

// Starts from lineups by speed and by memory, and changes them one stage at a time (leave a worker
// out, put one in, exchange two, join or part groups) while that makes them better, for at most a
// fixed number of lineups. Deterministic; nullopt when none that was tried fits.
std::optional<Found> SearchLocally(StageOptions& options, const SearchRules& rules);

}  // namespace renga::partition

#endif  // RENGA_PARTITION_LOCAL_SEARCH_H_

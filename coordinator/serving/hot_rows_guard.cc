#include "coordinator/serving/hot_rows_guard.h"

#include <algorithm>

namespace renga::serving {

bool NeedsAllRows(std::span<const model::TokenId> prompt, const model::RowSet& hot) {
  const size_t count = std::min(prompt.size(), static_cast<size_t>(kGuardTokens));
  int64_t cold = 0;
  for (const model::TokenId token : prompt.last(count)) {
    cold += std::binary_search(hot.begin(), hot.end(), token) ? 0 : 1;
  }
  return static_cast<double>(cold) > kMostColdTokens * static_cast<double>(count);
}

}  // namespace renga::serving

#include "worker/kernels/cuda/top_merge.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <functional>
#include <limits>
#include <vector>

#include "worker/kernels/cuda/top_key.h"

namespace renga::kernels::cuda {

void MergeTop(std::span<const uint64_t> keys, int64_t k, TopRow& row) {
  std::vector<uint64_t> best(keys.begin(), keys.end());
  const auto count = std::min(static_cast<size_t>(k), best.size());
  std::partial_sort(best.begin(), best.begin() + static_cast<int64_t>(count), best.end(),
                    std::greater<>());
  row.indices.clear();
  row.logits.clear();
  for (size_t i = 0; i < count && best[i] != 0; ++i) {
    row.indices.push_back(static_cast<int32_t>(TopKeyColumn(best[i])));
    row.logits.push_back(std::bit_cast<float>(TopKeyLogitBits(best[i])));
  }
}

void MergeNormaliser(std::span<const float> largest, std::span<const double> sums, TopRow& row) {
  row.max_logit = -std::numeric_limits<float>::infinity();
  for (const float logit : largest) row.max_logit = std::max(row.max_logit, logit);
  row.sum_exp = 0;
  for (size_t i = 0; i < largest.size(); ++i) {
    if (sums[i] == 0) continue;  // a chunk without a logit above minus infinity
    row.sum_exp += sums[i] * std::exp(static_cast<double>(largest[i]) - row.max_logit);
  }
}

}  // namespace renga::kernels::cuda

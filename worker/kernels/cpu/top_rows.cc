#include "worker/kernels/cpu/top_rows.h"

#include <algorithm>
#include <cmath>
#include <limits>

namespace renga::kernels::cpu {

std::vector<int32_t> TopColumns(std::span<const float> logits, int64_t k) {
  k = std::clamp<int64_t>(k, 0, static_cast<int64_t>(logits.size()));
  std::vector<int32_t> best;
  if (k == 0) return best;
  const auto value = [&](int32_t i) {
    const float logit = logits[static_cast<size_t>(i)];
    return std::isnan(logit) ? -std::numeric_limits<float>::infinity() : logit;
  };
  const auto before = [&](int32_t a, int32_t b) {
    return value(a) > value(b) || (value(a) == value(b) && a < b);
  };
  // A heap whose front is the worst of the best k so far; few columns get past it.
  best.reserve(static_cast<size_t>(k));
  float worst = 0;
  for (size_t i = 0; i < logits.size(); ++i) {
    const auto column = static_cast<int32_t>(i);
    if (static_cast<int64_t>(best.size()) == k) {
      // Columns come in order, so an equal one is not better.
      if (!(logits[i] > worst)) continue;
      std::pop_heap(best.begin(), best.end(), before);
      best.pop_back();
    }
    best.push_back(column);
    std::push_heap(best.begin(), best.end(), before);
    worst = value(best.front());
  }
  std::sort_heap(best.begin(), best.end(), before);
  return best;
}

}  // namespace renga::kernels::cpu

#include "worker/engine/expert_choice.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>

namespace renga::engine {
namespace {

// NaN has no place in an order: it comes last.
float Comparable(float score) {
  return std::isnan(score) ? -std::numeric_limits<float>::infinity() : score;
}

// The numbers of the best experts of a row, best first.
void FindBest(std::span<const float> scores, int64_t used, std::vector<int32_t>& best) {
  best.resize(scores.size());
  std::iota(best.begin(), best.end(), 0);
  std::partial_sort(best.begin(), best.begin() + used, best.end(), [&](int32_t a, int32_t b) {
    const float of_a = Comparable(scores[a]);
    const float of_b = Comparable(scores[b]);
    return of_a > of_b || (of_a == of_b && a < b);
  });
  best.resize(static_cast<size_t>(used));
}

}  // namespace

std::vector<ExpertRow> ChooseExperts(std::span<const float> scores, int64_t experts, int64_t used) {
  std::vector<ExpertRow> chosen;
  std::vector<int32_t> best;
  std::vector<double> powers(static_cast<size_t>(used));
  const auto width = static_cast<size_t>(experts);
  for (size_t row = 0; (row + 1) * width <= scores.size(); ++row) {
    const std::span<const float> of_row = scores.subspan(row * width, width);
    FindBest(of_row, used, best);
    double sum = 0;
    for (size_t i = 0; i < best.size(); ++i) {
      powers[i] = std::exp(double{of_row[best[i]]} - of_row[best[0]]);
      sum += powers[i];
    }
    for (size_t i = 0; i < best.size(); ++i) {
      chosen.push_back({.expert = best[i],
                        .row = static_cast<int32_t>(row),
                        .weight = static_cast<float>(powers[i] / sum)});
    }
  }
  std::sort(chosen.begin(), chosen.end(), [](const ExpertRow& a, const ExpertRow& b) {
    return a.expert != b.expert ? a.expert < b.expert : a.row < b.row;
  });
  return chosen;
}

std::vector<ExpertRows> RowsByExpert(std::span<const ExpertRow> chosen) {
  std::vector<ExpertRows> groups;
  for (size_t i = 0; i < chosen.size(); ++i) {
    if (groups.empty() || groups.back().expert != chosen[i].expert) {
      groups.push_back({.expert = chosen[i].expert, .first = static_cast<int64_t>(i)});
    }
    ++groups.back().count;
  }
  return groups;
}

}  // namespace renga::engine

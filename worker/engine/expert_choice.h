// Which experts of a mixture compute which rows of a step, and what they count for.
#ifndef RENGA_WORKER_ENGINE_EXPERT_CHOICE_H_
#define RENGA_WORKER_ENGINE_EXPERT_CHOICE_H_

#include <cstdint>
#include <span>
#include <vector>

namespace renga::engine {

// A row that an expert computes.
struct ExpertRow {
  int32_t expert = 0;
  int32_t row = 0;
  float weight = 0;  // of what the expert gives, in the row's sum

  friend bool operator==(const ExpertRow&, const ExpertRow&) = default;
};

// The `used` experts with the largest scores of each row (rows x experts), the lower number first
// where two are equal, and as weights the softmax of their scores alone: it is the softmax over
// all experts divided by what the chosen ones have of it. Ordered by expert, then by row, so that
// an expert's rows lie side by side. A row with NaN chooses some distinct experts. `used` is 1 to
// `experts`, and scores are whole rows.
std::vector<ExpertRow> ChooseExperts(std::span<const float> scores, int64_t experts, int64_t used);

// Rows [first, first + count) of what ChooseExperts gave.
struct ExpertRows {
  int32_t expert = 0;
  int64_t first = 0;
  int64_t count = 0;
};
// Each expert that has rows, in the order of the experts.
std::vector<ExpertRows> RowsByExpert(std::span<const ExpertRow> chosen);

}  // namespace renga::engine

#endif  // RENGA_WORKER_ENGINE_EXPERT_CHOICE_H_

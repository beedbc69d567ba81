#include "model/approximation.h"

#include "absl/strings/str_cat.h"

namespace renga::model {

bool operator==(const Approximation& a, const Approximation& b) {
  const bool same_rows =
      a.hot_rows == b.hot_rows ||
      (a.hot_rows != nullptr && b.hot_rows != nullptr && *a.hot_rows == *b.hot_rows);
  return same_rows && a.late_percent == b.late_percent && a.at_most_percent == b.at_most_percent;
}

absl::Status CheckApproximation(const Approximation& approximation, const ModelConfig& config) {
  const auto is_share = [](int64_t percent) { return percent >= 0 && percent <= 100; };
  if (!is_share(approximation.late_percent) || !is_share(approximation.at_most_percent)) {
    return absl::InvalidArgumentError(
        absl::StrCat("shares of an approximation are 0 to 100 percent, not ",
                     approximation.late_percent, " and ", approximation.at_most_percent));
  }
  if (approximation.hot_rows == nullptr) return absl::OkStatus();
  if (approximation.hot_rows->empty()) {
    return absl::InvalidArgumentError("hot rows of the vocabulary: there are none");
  }
  int64_t last = -1;
  for (const int32_t row : *approximation.hot_rows) {
    if (row <= last || row >= config.vocab_size) {
      return absl::InvalidArgumentError(
          absl::StrCat("hot rows of a vocabulary of ", config.vocab_size,
                       " are not in order or not in it: ", row, " after ", last));
    }
    last = row;
  }
  return absl::OkStatus();
}

}  // namespace renga::model

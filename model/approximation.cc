#include "model/approximation.h"

#include "absl/strings/str_cat.h"
#include "model/block_rows.h"

namespace renga::model {

bool SameRows(const std::shared_ptr<const RowSet>& a, const std::shared_ptr<const RowSet>& b) {
  return a == b || (a != nullptr && b != nullptr && *a == *b);
}

bool operator==(const Approximation& a, const Approximation& b) {
  return SameRows(a.hot_rows, b.hot_rows) && SameRows(a.cold_neurons, b.cold_neurons) &&
         a.late_percent == b.late_percent && a.at_most_percent == b.at_most_percent;
}

namespace {

absl::Status CheckColdNeurons(const Approximation& approximation, const ModelConfig& config) {
  if (approximation.late_percent > 0 || approximation.at_most_percent < 100) {
    return absl::InvalidArgumentError(
        "cold neurons have few bits for every token: that goes neither with a late slice nor with "
        "a cap on the approximated share");
  }
  const int64_t count = config.n_layers * config.d_ff;
  int64_t last = -1;
  for (const int32_t neuron : *approximation.cold_neurons) {
    if (neuron <= last || neuron >= count) {
      return absl::InvalidArgumentError(absl::StrCat("cold neurons of ", count,
                                                     " are not in order or not in them: ", neuron,
                                                     " after ", last));
    }
    last = neuron;
  }
  return absl::OkStatus();
}

}  // namespace

absl::Status CheckApproximation(const Approximation& approximation, const ModelConfig& config) {
  const auto is_share = [](int64_t percent) { return percent >= 0 && percent <= 100; };
  if (!is_share(approximation.late_percent) || !is_share(approximation.at_most_percent)) {
    return absl::InvalidArgumentError(
        absl::StrCat("shares of an approximation are 0 to 100 percent, not ",
                     approximation.late_percent, " and ", approximation.at_most_percent));
  }
  if (approximation.cold_neurons != nullptr) {
    const absl::Status cold = CheckColdNeurons(approximation, config);
    if (!cold.ok()) return cold;
  }
  if (approximation.hot_rows == nullptr) return absl::OkStatus();
  return CheckRowSet(*approximation.hot_rows, config, "hot rows");
}

}  // namespace renga::model

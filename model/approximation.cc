#include "model/approximation.h"

#include "absl/strings/str_cat.h"
#include "base/split_mix.h"
#include "model/block_rows.h"

namespace renga::model {

bool SameRows(const std::shared_ptr<const RowSet>& a, const std::shared_ptr<const RowSet>& b) {
  return a == b || (a != nullptr && b != nullptr && *a == *b);
}

bool operator==(const Approximation& a, const Approximation& b) {
  return SameRows(a.hot_rows, b.hot_rows) && SameRows(a.cold_neurons, b.cold_neurons) &&
         a.without_attention == b.without_attention &&
         a.without_feed_forward == b.without_feed_forward && a.late_percent == b.late_percent &&
         a.at_most_percent == b.at_most_percent && a.deadline_ms == b.deadline_ms &&
         a.missing_percent == b.missing_percent;
}

bool Approximation::IsMissing(int64_t position, int64_t layer) const {
  if (missing_percent == 0 || !Applies(position)) return false;
  // A draw for each pair, the same wherever the layer is and whenever the position is computed.
  const uint64_t pair = static_cast<uint64_t>(position) << 20 ^ static_cast<uint64_t>(layer);
  return static_cast<int64_t>(base::SplitMix(pair + base::kSplitMixStep) % 100) < missing_percent;
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

absl::Status CheckLayerSet(const LayerSet& layers, const ModelConfig& config) {
  int64_t last = -1;
  for (const int32_t layer : layers) {
    if (layer <= last || layer >= config.n_layers) {
      return absl::InvalidArgumentError(
          layer <= last
              ? absl::StrCat("layers to leave out come in order, each once: not ", layer, " after ",
                             last)
              : absl::StrCat("there is no layer ", layer,
                             " to leave out: this model has layers 0 to ", config.n_layers - 1));
    }
    last = layer;
  }
  return absl::OkStatus();
}

absl::Status CheckLeftOutParts(const Approximation& approximation, const ModelConfig& config) {
  if (approximation.late_percent > 0 || approximation.at_most_percent < 100) {
    return absl::InvalidArgumentError(
        "layers are left out for every token: that goes neither with a late slice nor with a cap "
        "on the approximated share");
  }
  const absl::Status attention = CheckLayerSet(approximation.without_attention, config);
  return attention.ok() ? CheckLayerSet(approximation.without_feed_forward, config) : attention;
}

}  // namespace

absl::Status CheckApproximation(const Approximation& approximation, const ModelConfig& config) {
  const auto is_share = [](int64_t percent) { return percent >= 0 && percent <= 100; };
  for (const int64_t share :
       {approximation.late_percent, approximation.missing_percent, approximation.at_most_percent}) {
    if (is_share(share)) continue;
    return absl::InvalidArgumentError(
        absl::StrCat("shares of an approximation are 0 to 100 percent, not ", share));
  }
  if (approximation.deadline_ms < 0 || approximation.deadline_ms > kMaxDeadlineMs) {
    return absl::InvalidArgumentError(absl::StrCat("a deadline is 1 to ", kMaxDeadlineMs,
                                                   " ms, not ", approximation.deadline_ms));
  }
  if (approximation.late_percent > 0 &&
      (approximation.deadline_ms > 0 || approximation.missing_percent > 0)) {
    return absl::InvalidArgumentError(
        "a late slice goes neither with a deadline nor with missing feed-forwards: name one of "
        "them");
  }
  if (config.has_experts() && (approximation.late_percent > 0 || approximation.deadline_ms > 0 ||
                               approximation.cold_neurons != nullptr)) {
    return absl::UnimplementedError(
        "late slices, deadlines and cold neurons are not for layers with experts: each token uses "
        "few of their neurons as it is");
  }
  if (approximation.cold_neurons != nullptr) {
    const absl::Status cold = CheckColdNeurons(approximation, config);
    if (!cold.ok()) return cold;
  }
  if (approximation.leaves_out_parts()) {
    const absl::Status parts = CheckLeftOutParts(approximation, config);
    if (!parts.ok()) return parts;
  }
  if (approximation.hot_rows == nullptr) return absl::OkStatus();
  return CheckRowSet(*approximation.hot_rows, config, "hot rows");
}

}  // namespace renga::model

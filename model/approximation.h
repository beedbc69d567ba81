// Ways to compute less than the model, or later: experiments that users turn on, never a default.
// What is here is equal on every stage of a plan and travels with it. docs/regions.md says what
// each of them costs.
#ifndef RENGA_MODEL_APPROXIMATION_H_
#define RENGA_MODEL_APPROXIMATION_H_

#include <cstdint>
#include <memory>
#include <vector>

#include "absl/status/status.h"
#include "model/model_config.h"

namespace renga::model {

// Rows of the vocabulary, ascending, each once.
using RowSet = std::vector<int32_t>;
// Feed-forward neurons, ascending, each once: the layer times d_ff and the neuron in it.
using NeuronSet = std::vector<int32_t>;
// Layers, ascending, each once.
using LayerSet = std::vector<int32_t>;

// Whether both are null or have the same rows.
bool SameRows(const std::shared_ptr<const RowSet>& a, const std::shared_ptr<const RowSet>& b);

struct Approximation {
  // Of every layer's feed-forward neurons, those whose contribution is added one layer late
  // (late_program.h). 0: none.
  int64_t late_percent = 0;
  // The only rows of the output matrix that are multiplied, but for slots that say all_rows; others
  // count as no more likely than the least likely of these. Null: all rows.
  std::shared_ptr<const RowSet> hot_rows = nullptr;
  // Neurons whose weights have three bits for each number (worker/engine/three_bits.h), at every
  // position. Null: none.
  std::shared_ptr<const NeuronSet> cold_neurons = nullptr;
  // Layers without their attention, and without their feed-forward, at every position: neither is
  // computed, and matrices that nothing else multiplies by are not held.
  LayerSet without_attention = {};
  LayerSet without_feed_forward = {};
  // How long a step waits for the matrices of a layer's feed-forward that its worker reads from
  // disk (--lazy). What has not come by then is left out of the step: it adds nothing. 0: until it
  // comes. Steps wait as ever when one of their positions may not be approximated.
  int64_t deadline_ms = 0;
  // Of the feed-forwards of all positions and layers, those that are left out whatever comes when:
  // what deadlines cost, without a clock.
  int64_t missing_percent = 0;
  // Of the positions, those that may be approximated at all, spread evenly.
  int64_t at_most_percent = 100;

  // Nothing is approximated: the bits are those of a build that has never heard of this.
  bool exact() const {
    return late_percent == 0 && hot_rows == nullptr && cold_neurons == nullptr &&
           !leaves_out_parts() && deadline_ms == 0 && missing_percent == 0;
  }
  // Whether there are layers without one of their parts.
  bool leaves_out_parts() const {
    return !without_attention.empty() || !without_feed_forward.empty();
  }
  // Whether the token at this position is approximated. It depends on the position alone, so that
  // chunks, batches, guesses and replays change nothing.
  bool Applies(int64_t position) const {
    return (position + 1) * at_most_percent / 100 > position * at_most_percent / 100;
  }
  // Whether this feed-forward is one of the missing_percent.
  bool IsMissing(int64_t position, int64_t layer) const;
  friend bool operator==(const Approximation& a, const Approximation& b);
};

// The longest deadline; no disk is waited for that long.
inline constexpr int64_t kMaxDeadlineMs = 60'000;

// kInvalidArgument for shares outside 0 to 100 percent, a deadline outside 0 to kMaxDeadlineMs,
// rows that are no RowSet of the model's vocabulary, neurons that are no NeuronSet of its layers,
// layers that are no LayerSet of the model's, cold neurons or layers without parts together with a
// late slice or a cap, and a late slice together with what is left out.
absl::Status CheckApproximation(const Approximation& approximation, const ModelConfig& config);

}  // namespace renga::model

#endif  // RENGA_MODEL_APPROXIMATION_H_

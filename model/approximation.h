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

// Whether both are null or have the same rows.
bool SameRows(const std::shared_ptr<const RowSet>& a, const std::shared_ptr<const RowSet>& b);

struct Approximation {
  // Of every layer's feed-forward neurons, those whose contribution is added one layer late
  // (late_program.h). 0: none.
  int64_t late_percent = 0;
  // The only rows of the output matrix that are multiplied, but for slots that say all_rows; others
  // count as no more likely than the least likely of these. Null: all rows.
  std::shared_ptr<const RowSet> hot_rows = nullptr;
  // Neurons whose weights have three bits for each number (worker/engine/low_bits.h), at every
  // position. Null: none.
  std::shared_ptr<const NeuronSet> cold_neurons = nullptr;
  // Of the positions, those that may be approximated at all, spread evenly.
  int64_t at_most_percent = 100;

  // Nothing is approximated: the bits are those of a build that has never heard of this.
  bool exact() const { return late_percent == 0 && hot_rows == nullptr && cold_neurons == nullptr; }
  // Whether the token at this position is approximated. It depends on the position alone, so that
  // chunks, batches, guesses and replays change nothing.
  bool Applies(int64_t position) const {
    return (position + 1) * at_most_percent / 100 > position * at_most_percent / 100;
  }
  friend bool operator==(const Approximation& a, const Approximation& b);
};

// kInvalidArgument for shares outside 0 to 100 percent, for rows that are no RowSet of the model's
// vocabulary, for neurons that are no NeuronSet of its layers, and for cold neurons together with a
// late slice or a cap.
absl::Status CheckApproximation(const Approximation& approximation, const ModelConfig& config);

}  // namespace renga::model

#endif  // RENGA_MODEL_APPROXIMATION_H_

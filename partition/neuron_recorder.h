// What the feed-forward neurons of a model did while it read texts: how much each of them added,
// and which were the strongest at each token.
#ifndef RENGA_PARTITION_NEURON_RECORDER_H_
#define RENGA_PARTITION_NEURON_RECORDER_H_

#include <cstdint>
#include <span>
#include <string>
#include <vector>

namespace renga::partition {

// Sums over the tokens of one text, by layer and neuron (layer after layer), of the square of what
// the neuron added to the residual stream, as a share of all that the layer's neurons added.
struct NeuronText {
  std::string name;
  int64_t positions = 0;
  std::vector<float> first_half;
  std::vector<float> second_half;
};

// The strongest neurons of one layer, `active` of each token, tokens in the order of the texts.
struct ActiveNeurons {
  int64_t layer = 0;
  std::vector<int32_t> neurons;
};

struct NeuronRecord {
  int64_t layers = 0;
  int64_t neurons = 0;  // of a layer
  int64_t active = 0;   // those that are called active at a token: the strongest of each layer
  std::vector<NeuronText> texts;
  std::vector<ActiveNeurons> sampled;  // of a few layers
  // After so many tokens, how many neurons of all layers have been active.
  std::vector<int64_t> distinct;
  // What the strongest neurons of a token and layer add of all, for each twentieth of them more: 20
  // numbers, the mean over a part of the tokens.
  std::vector<double> strongest;
};

// Not thread-safe.
class NeuronRecorder {
 public:
  // `lengths`: for each layer and neuron the length of its column of the down projection, which
  // what it gives is multiplied by. Active are a twentieth of a layer's neurons.
  NeuronRecorder(int64_t layers, int64_t neurons, std::vector<float> lengths);

  // Rows that are added from now on are those of a text with so many tokens.
  void BeginText(const std::string& name, int64_t positions);
  // What the layer's neurons give (rows x neurons) at the text's tokens from `first_position` on.
  void Add(int64_t layer, int64_t first_position, std::span<const float> rows);

  NeuronRecord Finish();

 private:
  void AddRow(int64_t layer, int64_t position, std::span<const float> row);
  void AddStrongest();

  NeuronRecord record_;
  const std::vector<float> lengths_;
  std::vector<int64_t> first_use_;  // by layer and neuron: the token where it was active; -1: none
  int64_t positions_before_ = 0;    // of the texts before the present one
  int64_t strongest_rows_ = 0;
  std::vector<float> added_;   // of one row
  std::vector<float> sorted_;  // the same
};

}  // namespace renga::partition

#endif  // RENGA_PARTITION_NEURON_RECORDER_H_

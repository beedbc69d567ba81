// Cold neurons of a feed-forward (model::Approximation::cold_neurons) with three bits for each
// number of their rows of the first matrices. What cold and other neurons give lies one behind the
// other, and is put into the model's order before the last matrix, which stays as it is: its blocks
// go over neighbouring neurons.
#ifndef RENGA_WORKER_ENGINE_COLD_NEURONS_H_
#define RENGA_WORKER_ENGINE_COLD_NEURONS_H_

#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "absl/status/statusor.h"
#include "model/approximation.h"
#include "model/architecture.h"
#include "model/shard_spec.h"
#include "worker/engine/weight_loader.h"
#include "worker/kernels/backend.h"

namespace renga::engine {

// A layer's neurons, or a slice of them.
struct NeuronOrder {
  std::vector<int32_t> neurons;  // the cold ones last; empty: none is cold
  int64_t hot = 0;
};

// Of the neurons in `range` of a layer whose first one has the number `first` in `cold`.
NeuronOrder OrderNeurons(const model::NeuronSet& cold, int64_t first, const model::Range& range);

// A matrix with a row for each neuron, in two.
struct MatrixByHeat {
  std::unique_ptr<kernels::WeightMatrix> hot;  // as stored; null: all are cold
  std::unique_ptr<kernels::WeightMatrix> cold;
};

// Rows `rows` of a tensor in an order with cold neurons. kUnimplemented where rows are not whole
// blocks of the format of three bits, or the backend does not know it. Errors of the loader.
absl::StatusOr<MatrixByHeat> LoadByHeat(const model::TensorSpec& tensor, const model::Range& rows,
                                        const NeuronOrder& order, WeightLoader& loader);

// `given` has a row of what the order's neurons gave for each token: the same by number.
std::vector<float> InModelOrder(const NeuronOrder& order, std::span<const float> given);

}  // namespace renga::engine

#endif  // RENGA_WORKER_ENGINE_COLD_NEURONS_H_

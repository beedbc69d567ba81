// A range of layers on a backend: weights, KV cache and activation buffers, and the interpreter
// of model::LayerProgram that runs rows through them.
#ifndef RENGA_WORKER_ENGINE_LAYER_STACK_H_
#define RENGA_WORKER_ENGINE_LAYER_STACK_H_

#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "model/architecture.h"
#include "model/shard_spec.h"
#include "worker/engine/weight_loader.h"
#include "worker/kernels/backend.h"

namespace renga::engine {

// Not thread-safe. Knows nothing of sequences: slots say which KV blocks belong to which rows.
class LayerStack {
 public:
  // Loads layers [layers.begin, layers.end), not empty and inside the model. `backend` outlives
  // the stack.
  static absl::StatusOr<std::unique_ptr<LayerStack>> Load(const model::Model& model,
                                                          const model::Range& layers,
                                                          const model::RuntimeLimits& limits,
                                                          kernels::Backend* backend,
                                                          WeightLoader& loader);

  // Runs `rows` (positions.size() x d_model, at least one row, at most max_step_tokens) through
  // all layers, in place. Slots cover all rows.
  absl::Status Run(std::span<float> rows, std::span<const int64_t> positions,
                   std::span<const kernels::SequenceSlot> slots);

 private:
  // Weights by the index in Architecture::LayerTensors: a matrix or a vector each.
  struct Layer {
    std::vector<std::unique_ptr<kernels::WeightMatrix>> matrices;
    std::vector<std::unique_ptr<kernels::Buffer>> vectors;
    std::unique_ptr<kernels::Buffer> kv;  // all blocks' keys, then all blocks' values
  };
  struct Call;

  LayerStack(const model::Model& model, const model::RuntimeLimits& limits,
             kernels::Backend* backend);
  absl::StatusOr<Layer> LoadLayer(int64_t index, WeightLoader& loader) const;
  absl::Status AllocateBuffers();

  absl::Status RunLayer(const Layer& layer, const Call& call);
  absl::Status RunOp(const Layer& layer, const model::Op& op, const Call& call);
  absl::Status RunLinears(const Layer& layer, std::span<const model::Op> ops, const Call& call);
  absl::Status RunRope(const model::Op& op, const Call& call);
  absl::Status RunAttention(const Layer& layer, const model::Op& op, const Call& call);
  // The first `call.rows` rows of an activation buffer.
  kernels::RowsView View(int buffer, const Call& call) const;

  const model::Model model_;
  const model::RuntimeLimits limits_;
  const model::LayerProgram program_;
  kernels::Backend* const backend_;
  std::vector<Layer> layers_;
  std::unique_ptr<kernels::Buffer> rope_factors_;  // null: none
  std::unique_ptr<kernels::Buffer> activations_;   // every buffer of the program, one after another
  std::vector<int64_t> activation_offsets_;        // in bytes
};

}  // namespace renga::engine

#endif  // RENGA_WORKER_ENGINE_LAYER_STACK_H_

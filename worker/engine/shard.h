// One shard in memory and how steps run through it: layers [a, b), or a block of the output
// matrix, or both.
#ifndef RENGA_WORKER_ENGINE_SHARD_H_
#define RENGA_WORKER_ENGINE_SHARD_H_

#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "model/architecture.h"
#include "model/shard_spec.h"
#include "model/step.h"
#include "worker/engine/memory_budget.h"
#include "worker/kernels/backend.h"

namespace renga::engine {

// Where a shard's weights come from: the local model file, the on-disk cache, the coordinator.
// Asked from several threads, one after the other.
class WeightSource {
 public:
  virtual ~WeightSource() = default;
  // The stored type of a tensor. kNotFound when the model has none of that name.
  virtual absl::StatusOr<base::DataType> TensorType(const std::string& name) = 0;
  // Fills `out` with bytes [offset, offset + out.size()) of the tensor, verified.
  virtual absl::Status Read(const std::string& name, int64_t offset, std::span<std::byte> out) = 0;
};

// Called as loading goes on, with bytes done and in total. Returning false cancels (kCancelled).
using LoadProgress = std::function<bool(int64_t done_bytes, int64_t total_bytes)>;

// Not thread-safe: one thread (the engine's own) runs steps.
class Shard {
 public:
  // Reserves everything from `budget` before allocating, then loads the weights through two staging
  // buffers of 2 MiB. `backend` and `budget` outlive the shard. kResourceExhausted when the
  // budget says no, kInvalidArgument when spec or limits don't fit the model.
  static absl::StatusOr<std::unique_ptr<Shard>> Load(const model::Model& model,
                                                     const model::ShardSpec& spec,
                                                     const model::RuntimeLimits& limits,
                                                     kernels::Backend* backend,
                                                     MemoryBudget* budget, WeightSource* source,
                                                     const LoadProgress& progress);
  virtual ~Shard() = default;

  // Runs the shard's layers: carries out the step's KV commands, then computes its slots. `rows`
  // is step.token_count() x d_model, replaced in place by the output activations. Everything is
  // checked before anything changes: kInvalidArgument (unknown sequence, wrong position, block out
  // of range or in use, too many rows) leaves the state as it was.
  virtual absl::Status RunLayers(const model::Step& step, std::span<float> rows) = 0;

  // Runs the head block: `rows` is step.output_count() x d_model (output activations of the last
  // layer, before the final norm). One HeadRow per output, ids absolute.
  virtual absl::StatusOr<std::vector<model::HeadRow>> RunHead(const model::Step& step,
                                                              std::span<const float> rows) = 0;

  // Forgets every sequence (a new epoch begins).
  virtual void ResetSequences() = 0;

  virtual const model::ShardSpec& spec() const = 0;
  virtual int64_t memory_bytes() const = 0;  // what it holds of the budget
};

// Copies the activations of the outputs (the last output_count rows of each slot) together:
// step.token_count() x d_model in, step.output_count() x d_model out.
std::vector<float> GatherOutputs(const model::Step& step, std::span<const float> rows,
                                 int64_t d_model);

}  // namespace renga::engine

#endif  // RENGA_WORKER_ENGINE_SHARD_H_

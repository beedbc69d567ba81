// How many bytes the parts of a shard take: the one place where the planner (who decides) and the
// engine (who allocates) get these numbers, so that they cannot disagree.
#ifndef RENGA_MODEL_FOOTPRINT_H_
#define RENGA_MODEL_FOOTPRINT_H_

#include <cstdint>
#include <vector>

#include "absl/status/statusor.h"
#include "model/architecture.h"
#include "model/gguf_file.h"
#include "model/shard_spec.h"

namespace renga::model {

// Bytes of every part of a model as stored in its file.
struct ModelFootprint {
  std::vector<int64_t> layer_weight_bytes;  // one per layer
  int64_t head_row_bytes = 0;               // one row of the output matrix
  int64_t shared_bytes = 0;                 // output norm, rope factors: in every shard
  int64_t embedding_bytes = 0;              // stays in the coordinator's file
};
// `model` must come from ReadModel of the same file; kNotFound names a tensor that is not there.
absl::StatusOr<ModelFootprint> MeasureModel(const GgufFile& file, const Model& model);

// Keys and values of one block (kKvBlockTokens positions) for one layer.
int64_t KvBlockBytesPerLayer(const ModelConfig& config, base::DataType kv_type);

// What a shard needs besides weights and KV, term by term. The engine allocates exactly these; all
// are 0 for an empty shard. T is limits.max_step_tokens, O is limits.max_step_outputs.
struct ScratchParts {
  int64_t activations = 0;  // T * 4 bytes * (sum of LayerProgram::buffer_widths); 0 without layers
  int64_t quantised = 0;    // T * 2 bytes * (inputs of the widest linear op of the shard)
  int64_t head = 0;         // O * 4 bytes * (head rows + d_model); 0 without head rows
  int64_t staging = 0;      // T * 4 bytes * d_model: rows that arrive while a step runs
  // Rope tables, the partial sums of attention, tables of KV blocks, alignment between tensors.
  int64_t fixed = 0;
  int64_t total() const { return activations + quantised + head + staging + fixed; }
};
ScratchParts MeasureScratch(const Model& model, const ShardSpec& spec, const RuntimeLimits& limits);
int64_t ScratchBytes(const Model& model, const ShardSpec& spec, const RuntimeLimits& limits);

// Everything a shard needs: the sum that must fit the worker's offer. Numbers that would overflow
// stop at 2^58, which fits nowhere, so that absurd limits are refused rather than wrapped.
struct ShardBytes {
  int64_t weights = 0;
  int64_t kv = 0;
  int64_t scratch = 0;
  int64_t total() const { return weights + kv + scratch; }
};
// `spec` must lie inside the model: [0, n_layers) and [0, vocab_size).
ShardBytes MeasureShard(const Model& model, const ModelFootprint& footprint, const ShardSpec& spec,
                        const RuntimeLimits& limits);

}  // namespace renga::model

#endif  // RENGA_MODEL_FOOTPRINT_H_

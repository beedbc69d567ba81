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
  int64_t shared_bytes = 0;                 // output norm, rope factors
  int64_t embedding_bytes = 0;              // stays in the coordinator's file
};
absl::StatusOr<ModelFootprint> MeasureModel(const GgufFile& file, const Model& model);

// Keys and values of one block (kKvBlockTokens positions) for one layer.
int64_t KvBlockBytesPerLayer(const ModelConfig& config, base::DataType kv_type);

// Activation buffers, quantised activations and logits of a shard.
int64_t ScratchBytes(const Model& model, const ShardSpec& spec, const RuntimeLimits& limits);

// Everything a shard needs: the sum that must fit the worker's offer.
struct ShardBytes {
  int64_t weights = 0;
  int64_t kv = 0;
  int64_t scratch = 0;
  int64_t total() const { return weights + kv + scratch; }
};
ShardBytes MeasureShard(const Model& model, const ModelFootprint& footprint, const ShardSpec& spec,
                        const RuntimeLimits& limits);

}  // namespace renga::model

#endif  // RENGA_MODEL_FOOTPRINT_H_

// How many bytes the parts of a shard take: the one place where the planner (who decides) and the
// engine (who allocates) get these numbers, so that they cannot disagree.
#ifndef RENGA_MODEL_FOOTPRINT_H_
#define RENGA_MODEL_FOOTPRINT_H_

#include <cstdint>
#include <map>
#include <vector>

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "model/approximation.h"
#include "model/architecture.h"
#include "model/gguf_file.h"
#include "model/layer_slice.h"
#include "model/shard_spec.h"

namespace renga::model {

// Bytes of one layer's weights as stored in its file, or as held under an approximation, by how
// they are cut over a group.
struct LayerWeightBytes {
  int64_t uncut = 0;         // on every member
  int64_t query_heads = 0;   // what is cut by query heads, all of them
  int64_t kv_heads = 0;      // by KV heads
  int64_t feed_forward = 0;  // by feed-forward columns
  int64_t experts = 0;       // of all experts of a mixture, of which a token reads some
  // Less than these, where cold neurons have few bits. Of whole layers only: which slice has how
  // many of them is not known here.
  int64_t saved = 0;
  int64_t total() const { return uncut + query_heads + kv_heads + feed_forward + experts - saved; }
};

// Bytes of every part of a model as stored in its file.
struct ModelFootprint {
  std::vector<LayerWeightBytes> layers;
  SliceUnits slice_units;      // that every layer may be cut at
  int64_t head_row_bytes = 0;  // one row of the output matrix, as it is held
  // What a row takes as long as, where less of it is held (a head behind a screen); 0: what is
  // held.
  int64_t head_row_work_bytes = 0;
  int64_t HeadRowWork() const {
    return head_row_work_bytes > 0 ? head_row_work_bytes : head_row_bytes;
  }
  int64_t shared_bytes = 0;     // output norm, rope factors: in every shard
  int64_t embedding_bytes = 0;  // in the coordinator's file, or on one worker
  // The formats of the layers' weights that a token reads, all layers together, and of the output
  // matrix: a processor reads some faster than others.
  std::map<base::DataType, int64_t> layer_bytes_of;
  base::DataType head_type = base::DataType::kInvalid;
};
// `model` must come from ReadModel of the same file; kNotFound names a tensor that is not there.
absl::StatusOr<ModelFootprint> MeasureModel(const GgufFile& file, const Model& model);

// In which format a tensor is stored.
using TypeOf = absl::FunctionRef<absl::StatusOr<base::DataType>(const TensorSpec& tensor)>;

// What is held of one layer. Errors of `type_of`; kUnimplemented for parts that can't be left out
// of this family's layers; kInvalidArgument for a tensor that is not whole blocks of its format.
absl::StatusOr<LayerWeightBytes> MeasureLayer(const Model& model, int64_t layer, TypeOf type_of,
                                              const Approximation& approximation);

// The layers of `footprint` as they are held under the approximation. Errors as above.
absl::Status CountApproximation(const GgufFile& file, const Model& model,
                                const Approximation& approximation, ModelFootprint& footprint);

// Counts a tensor that is stored in `bytes` bytes.
void AddTensor(const TensorSpec& tensor, int64_t bytes, LayerWeightBytes& layer);

// Of such a tensor, what a token reads: of experts only those that it uses.
int64_t BytesReadPerToken(const TensorSpec& tensor, int64_t bytes, const ModelConfig& config);

// The part of a layer's experts that a step of `rows` rows is expected to read when every row
// chooses any of them alike: 1 - (1 - used / experts)^rows. 0 without experts.
double ShareOfExpertsRead(const ModelConfig& config, int64_t rows);

// What a member with this slice holds of the layer.
int64_t SliceBytes(const LayerWeightBytes& layer, const ModelConfig& config,
                   const LayerSlice& slice);

// Keys and values of one block (kKvBlockTokens positions) for one layer.
int64_t KvBlockBytesPerLayer(const ModelConfig& config, base::DataType kv_type);

// What a shard needs besides weights and KV, term by term. The engine allocates exactly these; all
// are 0 for an empty shard. T is limits.max_step_tokens, O is limits.max_step_outputs.
struct ScratchParts {
  int64_t activations = 0;  // T * 4 bytes * (sum of LayerProgram::buffer_widths); 0 without layers
  int64_t quantised = 0;    // T * 2 bytes * (inputs of the widest linear op of the shard)
  int64_t head = 0;         // O * 4 bytes * (head rows + d_model); 0 without head rows
  int64_t staging = 0;      // T * 4 bytes * d_model: rows that arrive while a step runs
  int64_t group = 0;        // T * 4 bytes * d_model and what is on its way; 0 without a slice
  // Rope tables, the partial sums of attention, tables of KV blocks, alignment between tensors.
  int64_t fixed = 0;
  int64_t total() const { return activations + quantised + head + staging + group + fixed; }
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
// `spec` must lie inside the model: [0, n_layers) and [0, vocab_size), CheckSlice for a slice.
ShardBytes MeasureShard(const Model& model, const ModelFootprint& footprint, const ShardSpec& spec,
                        const RuntimeLimits& limits);

}  // namespace renga::model

#endif  // RENGA_MODEL_FOOTPRINT_H_

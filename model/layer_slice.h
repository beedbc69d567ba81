// Slices of layers: how the members of a tensor-parallel group divide each layer of their stage.
//
// Attention is cut by heads, the feed-forward by columns; both end in a linear op that is cut along
// its input side, so that each member has a part of a sum over all of them (OpKind::kAllReduce).
// The cut of Megatron-LM (Shoeybi et al. 2019, arXiv 1909.08053), with parts of any size. Where
// members outnumber KV heads, several of them hold the same KV head.
#ifndef RENGA_MODEL_LAYER_SLICE_H_
#define RENGA_MODEL_LAYER_SLICE_H_

#include <cstdint>
#include <span>

#include "absl/status/status.h"
#include "base/data_type.h"
#include "model/architecture.h"
#include "model/model_config.h"
#include "model/shard_spec.h"

namespace renga::model {

// The multiples at which layers may be cut: quantised blocks lie along a matrix's inputs, and a
// block is never cut.
struct SliceUnits {
  int64_t heads = 1;  // query heads
  int64_t ff = 1;     // feed-forward columns
  friend bool operator==(const SliceUnits&, const SliceUnits&) = default;
};
// Widens `units` until a tensor of that type may be cut at them.
void Widen(const TensorSpec& tensor, base::DataType type, const ModelConfig& config,
           SliceUnits& units);

// A step of so many rows shares them out over lanes that take turns, so that a group sums up one
// lane while it computes the next. Fewer are little to send, and each lane reads all weights.
inline constexpr int64_t kFewestRowsForLanes = 32;

// All of a layer.
LayerSlice WholeLayer(const ModelConfig& config);

// The KV heads that these query heads read.
Range KvHeadsOf(const ModelConfig& config, const Range& heads);

// kUnimplemented for a mixture of experts, whose layers are not cut. kInvalidArgument unless the
// slice lies inside the model, computes something, is cut at the units,
// and its heads are either whole groups (all that share a KV head) or inside one group.
absl::Status CheckSlice(const ModelConfig& config, const SliceUnits& units,
                        const LayerSlice& slice);
// Also: members in order cover every head and every column exactly once.
absl::Status CheckGroup(const ModelConfig& config, const SliceUnits& units,
                        std::span<const LayerSlice> members);

// The model as a member sees it: with the heads and feed-forward columns of the slice. Programs and
// tensor shapes made from it are the slice's.
ModelConfig SlicedConfig(const ModelConfig& config, const LayerSlice& slice);

// What a member holds of a tensor, in the tensor's own rows and columns. Vectors are cut along
// their numbers: `columns`.
struct TensorPart {
  Range rows;
  Range columns;
};
TensorPart PartOf(const TensorSpec& tensor, const ModelConfig& config, const LayerSlice& slice);
TensorPart WholeTensor(const TensorSpec& tensor);
// One expert's matrix of a tensor that has experts; `expert` is one of them.
TensorPart ExpertPart(const TensorSpec& tensor, int64_t expert);

}  // namespace renga::model

#endif  // RENGA_MODEL_LAYER_SLICE_H_

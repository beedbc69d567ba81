// Dividing each layer of a stage over the members of a tensor-parallel group: in proportion to
// their speed, within their memory.
#ifndef RENGA_PARTITION_SLICE_SPLIT_H_
#define RENGA_PARTITION_SLICE_SPLIT_H_

#include <cstdint>
#include <optional>
#include <vector>

#include "model/layer_slice.h"
#include "model/model_config.h"
#include "model/shard_spec.h"

namespace renga::partition {

struct SliceMember {
  double ms_per_byte = 0;
  int64_t room = 0;  // bytes for its slices of all layers of the stage
};

// One layer, and the whole stage, in the units that are divided.
struct SliceCosts {
  double query_head_bytes = 0;  // of one layer's weights
  double kv_head_bytes = 0;     // the same, and the keys and values that a token reads
  double ff_column_bytes = 0;
  double query_head_room = 0;  // of all layers of the stage, in memory
  double kv_head_room = 0;     // with the KV cache
  double ff_column_room = 0;
};

// Slices in the order of the members, which cover all heads and columns once and are cut where
// model::CheckGroup allows. Attention and feed-forward are divided independently, since a sum
// separates them: their slowest members' times add up, and the least such sum is found. Exact for
// the given order of members, which matters only where members share a KV head. nullopt when the
// members have no room, or are more than there are units of columns.
std::optional<std::vector<model::LayerSlice>> SplitSlices(const model::ModelConfig& config,
                                                          const model::SliceUnits& units,
                                                          const SliceCosts& costs,
                                                          const std::vector<SliceMember>& members);

}  // namespace renga::partition

#endif  // RENGA_PARTITION_SLICE_SPLIT_H_

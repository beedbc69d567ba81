// What one worker holds of a model, and the limits it was planned for.
#ifndef RENGA_MODEL_SHARD_SPEC_H_
#define RENGA_MODEL_SHARD_SPEC_H_

#include <cstdint>
#include <memory>
#include <optional>

#include "base/data_type.h"
#include "model/approximation.h"

namespace renga::model {

// A half-open range [begin, end) of layers or vocabulary rows.
struct Range {
  int64_t begin = 0;
  int64_t end = 0;
  int64_t size() const { return end - begin; }
  bool empty() const { return begin >= end; }
  friend bool operator==(const Range&, const Range&) = default;
};

// What one member of a tensor-parallel group computes of each of its layers; see layer_slice.h.
struct LayerSlice {
  Range heads;  // query heads, with the KV heads that they read; may be empty
  Range ff;     // feed-forward columns: rows of gate and up, inputs of down; may be empty
  friend bool operator==(const LayerSlice&, const LayerSlice&) = default;
};

struct ShardSpec {
  Range layers;                                    // may be empty: a worker with something else
  std::optional<LayerSlice> slice = std::nullopt;  // of every layer; nullopt: whole layers
  // Rows of the output matrix, as places in the order that blocks are cut from (block_rows.h): ids
  // unless near_rows say otherwise. May be empty.
  Range head_rows;
  // The whole embedding matrix: this worker turns tokens into rows, for the first stage.
  bool embedding = false;
  bool empty() const { return layers.empty() && head_rows.empty() && !embedding; }
  friend bool operator==(const ShardSpec&, const ShardSpec&) = default;
};

// Sizes everything in a shard that is not weights; equal on every stage of a plan.
struct RuntimeLimits {
  int64_t kv_blocks = 0;         // blocks of kKvBlockTokens positions, over all sequences
  int64_t max_step_tokens = 0;   // rows of the largest step
  int64_t max_step_outputs = 0;  // rows of the largest step that go through the head
  base::DataType kv_type = base::DataType::kF16;  // kF16, kF32 or kQ8_0
  // In which activations travel between workers: kF32, kF16 or kQ8_0 (base/wire_type.h).
  base::DataType wire_type = base::DataType::kF32;
  Approximation approximation = {};
  // Rows of the output matrix that come first in the order from which head blocks are cut
  // (block_rows.h). Null: rows are in the order of their ids.
  std::shared_ptr<const RowSet> near_rows = nullptr;
};

}  // namespace renga::model

#endif  // RENGA_MODEL_SHARD_SPEC_H_

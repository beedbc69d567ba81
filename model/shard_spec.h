// What one worker holds of a model, and the limits it was planned for.
#ifndef RENGA_MODEL_SHARD_SPEC_H_
#define RENGA_MODEL_SHARD_SPEC_H_

#include <cstdint>

#include "base/data_type.h"

namespace renga::model {

// A half-open range [begin, end) of layers or vocabulary rows.
struct Range {
  int64_t begin = 0;
  int64_t end = 0;
  int64_t size() const { return end - begin; }
  bool empty() const { return begin >= end; }
  friend bool operator==(const Range&, const Range&) = default;
};

struct ShardSpec {
  Range layers;     // may be empty: a worker with only a head block
  Range head_rows;  // vocabulary rows of the output matrix; may be empty
  friend bool operator==(const ShardSpec&, const ShardSpec&) = default;
};

// Sizes everything in a shard that is not weights; equal on every stage of a plan.
struct RuntimeLimits {
  int64_t kv_blocks = 0;         // blocks of kKvBlockTokens positions, over all sequences
  int64_t max_step_tokens = 0;   // rows of the largest step
  int64_t max_step_outputs = 0;  // rows of the largest step that go through the head
  base::DataType kv_type = base::DataType::kF16;  // kF16, kF32 or kQ8_0
};

}  // namespace renga::model

#endif  // RENGA_MODEL_SHARD_SPEC_H_

// How fast a backend attends to the cache of a long context.
#ifndef RENGA_BENCH_ATTENTION_MEASUREMENT_H_
#define RENGA_BENCH_ATTENTION_MEASUREMENT_H_

#include <chrono>
#include <cstdint>

#include "absl/status/statusor.h"
#include "base/data_type.h"
#include "worker/kernels/backend.h"

namespace renga::bench {

// Of one layer; a 1.1B model's as a rule.
struct AttentionShape {
  int64_t heads = 32;
  int64_t kv_heads = 4;
  int64_t head_dim = 64;
  base::DataType cache = base::DataType::kF16;
};

struct AttentionMeasurement {
  double median_seconds = 0;  // of a call
  double cache_bytes = 0;     // of keys and values that a call reads once
  double operations = 0;      // two for each number of a key or value and each head that uses it
};

// Times calls for the `tokens` rows that follow `depth` positions of one sequence. Caches of
// several layers, `working_set_bytes` together, take turns, so that no call finds its own in a
// cache of the processor. kInvalidArgument for a shape that the backend refuses.
absl::StatusOr<AttentionMeasurement> MeasureAttention(const AttentionShape& shape, int64_t tokens,
                                                      int64_t depth, int64_t working_set_bytes,
                                                      std::chrono::nanoseconds duration,
                                                      kernels::Backend& backend);

}  // namespace renga::bench

#endif  // RENGA_BENCH_ATTENTION_MEASUREMENT_H_

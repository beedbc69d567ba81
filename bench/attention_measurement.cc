#include "bench/attention_measurement.h"

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <memory>
#include <numeric>
#include <span>
#include <vector>

#include "base/status_macros.h"
#include "bench/plain_weights.h"
#include "model/step.h"
#include "worker/kernels/kv_layout.h"

namespace renga::bench {
namespace {

using Clock = std::chrono::steady_clock;

// A layer's keys and values.
struct Layer {
  std::unique_ptr<kernels::Buffer> keys;
  std::unique_ptr<kernels::Buffer> values;
};

absl::StatusOr<std::vector<Layer>> MakeLayers(int64_t bytes, int64_t working_set_bytes,
                                              kernels::Backend& backend) {
  const std::vector<std::byte> cells = PlainWeights(bytes);
  std::vector<Layer> layers(
      static_cast<size_t>(std::max<int64_t>(1, working_set_bytes / (2 * bytes))));
  for (Layer& layer : layers) {
    RENGA_ASSIGN_OR_RETURN(layer.keys, backend.Allocate(bytes));
    RENGA_ASSIGN_OR_RETURN(layer.values, backend.Allocate(bytes));
    RENGA_RETURN_IF_ERROR(backend.Upload(cells, *layer.keys, 0));
    RENGA_RETURN_IF_ERROR(backend.Upload(cells, *layer.values, 0));
  }
  return layers;
}

}  // namespace

absl::StatusOr<AttentionMeasurement> MeasureAttention(const AttentionShape& shape, int64_t tokens,
                                                      int64_t depth, int64_t working_set_bytes,
                                                      std::chrono::nanoseconds duration,
                                                      kernels::Backend& backend) {
  const int64_t n_blocks = (depth + tokens + model::kKvBlockTokens - 1) / model::kKvBlockTokens;
  kernels::KvCacheView cache{.keys = nullptr,
                             .values = nullptr,
                             .type = shape.cache,
                             .n_blocks = n_blocks,
                             .block_tokens = model::kKvBlockTokens,
                             .n_kv_heads = shape.kv_heads,
                             .head_dim = shape.head_dim};
  const int64_t bytes = n_blocks * shape.kv_heads * kernels::KvLayout(cache).head_bytes();
  RENGA_ASSIGN_OR_RETURN(const std::vector<Layer> layers,
                         MakeLayers(bytes, working_set_bytes, backend));
  const int64_t columns = shape.heads * shape.head_dim;
  const std::vector<float> queries(static_cast<size_t>(tokens * columns), 0.125F);
  RENGA_ASSIGN_OR_RETURN(const auto in, backend.Allocate(tokens * columns * 4));
  RENGA_ASSIGN_OR_RETURN(const auto out, backend.Allocate(tokens * columns * 4));
  RENGA_RETURN_IF_ERROR(backend.Upload(std::as_bytes(std::span(queries)), *in, 0));
  std::vector<int32_t> blocks(static_cast<size_t>(n_blocks));
  std::iota(blocks.begin(), blocks.end(), 0);
  const kernels::SequenceSlot slot{
      .first_row = 0, .row_count = tokens, .first_position = depth, .blocks = blocks};

  std::vector<double> times;
  const auto end = Clock::now() + duration;
  for (size_t i = 0; times.size() < 3 || Clock::now() < end; ++i) {
    cache.keys = layers[i % layers.size()].keys->data();
    cache.values = layers[i % layers.size()].values->data();
    const auto start = Clock::now();
    RENGA_RETURN_IF_ERROR(backend.Attention(
        {.queries = {reinterpret_cast<const float*>(in->data()), tokens, columns, columns},
         .out = {.data = reinterpret_cast<float*>(out->data()),
                 .rows = tokens,
                 .columns = columns,
                 .stride = columns},
         .cache = cache,
         .n_heads = shape.heads,
         .scale = 1.0F / std::sqrt(static_cast<float>(shape.head_dim)),
         .window = 0,
         .slots = {&slot, 1}}));
    RENGA_RETURN_IF_ERROR(backend.Synchronize());
    times.push_back(std::chrono::duration<double>(Clock::now() - start).count());
  }
  std::sort(times.begin(), times.end());
  const double seen = static_cast<double>(tokens) *
                      (static_cast<double>(depth) + (static_cast<double>(tokens) + 1) / 2);
  return AttentionMeasurement{.median_seconds = times[times.size() / 2],
                              .cache_bytes = 2.0 * static_cast<double>(bytes),
                              .operations = 4.0 * seen * static_cast<double>(columns)};
}

}  // namespace renga::bench

// Models that exist only as numbers, for the planner's tests.
#ifndef RENGA_PARTITION_TEST_MODELS_H_
#define RENGA_PARTITION_TEST_MODELS_H_

#include <cstdint>
#include <utility>
#include <vector>

#include "model/architecture.h"
#include "model/footprint.h"

namespace renga::partition {

struct TestModel {
  model::Model model;
  model::ModelFootprint footprint;
};

// A llama of width 256 with layers of the given sizes; with `slices` groups can divide their
// attention (40 %) and their feed-forward.
inline TestModel MakeTestModel(const std::vector<int64_t>& layer_bytes, int64_t vocab_size,
                               bool slices = false) {
  TestModel made;
  made.model.architecture = *model::FindArchitecture("llama");
  model::ModelConfig& config = made.model.config;
  config.architecture = "llama";
  config.n_layers = static_cast<int64_t>(layer_bytes.size());
  config.d_model = 256;
  config.n_heads = 8;
  config.n_kv_heads = 4;
  config.head_dim = 32;
  config.d_ff = 512;
  config.vocab_size = vocab_size;
  config.context_length = 4096;
  config.norm_epsilon = 1e-5;
  config.rope.dims = 32;
  made.footprint.slice_units = {.heads = 1, .ff = 64};
  for (const int64_t bytes : layer_bytes) {
    const int64_t part = slices ? bytes / 10 : 0;
    made.footprint.layers.push_back({.uncut = bytes - 10 * part,
                                     .query_heads = 3 * part,
                                     .kv_heads = part,
                                     .feed_forward = 6 * part});
  }
  made.footprint.head_row_bytes = 1024;
  made.footprint.shared_bytes = 1024;
  made.footprint.embedding_bytes = vocab_size * 1024;
  return made;
}

}  // namespace renga::partition

#endif  // RENGA_PARTITION_TEST_MODELS_H_

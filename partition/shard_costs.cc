#include "partition/shard_costs.h"

#include <algorithm>
#include <limits>

namespace renga::partition {

using model::Range;
using model::ShardSpec;

namespace {

// As in model/footprint: a sum that fits nowhere, of which several can still be added.
constexpr int64_t kSaturated = int64_t{1} << 58;

int64_t Multiply(int64_t a, int64_t b) {
  int64_t result = 0;
  return __builtin_mul_overflow(a, b, &result) ? kSaturated : std::min(result, kSaturated);
}

}  // namespace

model::ShardBytes ShardCosts::Bytes(const ShardSpec& spec) const {
  const Family& family = FamilyOf(spec);
  model::ShardBytes bytes = family.without_layers;
  if (!spec.layers.empty()) {
    bytes.weights +=
        family.weights_before[spec.layers.end] - family.weights_before[spec.layers.begin];
    bytes.kv = Multiply(spec.layers.size(), family.kv_per_layer);
  }
  return bytes;
}

const ShardCosts::Family& ShardCosts::FamilyOf(const ShardSpec& spec) const {
  const model::LayerSlice slice =
      spec.slice.value_or(model::LayerSlice{.heads = {-1, -1}, .ff = {}});
  // Of the columns only the number matters; of the heads also which, for the KV heads they read.
  const Key key(!spec.layers.empty(), spec.head_rows.size(), slice.heads.begin, slice.heads.end,
                slice.ff.size(), spec.slice.has_value(), spec.embedding);
  const auto known = families_.find(key);
  if (known != families_.end()) return known->second;
  return families_.emplace(key, MeasureFamily(spec)).first->second;
}

ShardCosts::Family ShardCosts::MeasureFamily(const ShardSpec& spec) const {
  Family family;
  ShardSpec one = spec;
  if (!one.layers.empty()) one.layers = {0, 1};
  family.without_layers = model::MeasureShard(model_, footprint_, one, limits_);
  if (one.layers.empty()) return family;
  family.kv_per_layer = family.without_layers.kv;
  family.without_layers.kv = 0;
  family.weights_before.push_back(0);
  for (const model::LayerWeightBytes& layer : footprint_.layers) {
    const int64_t bytes = spec.slice.has_value()
                              ? model::SliceBytes(layer, model_.config, *spec.slice)
                              : layer.total();
    family.weights_before.push_back(family.weights_before.back() + bytes);
  }
  family.without_layers.weights -= family.weights_before[1];
  return family;
}

int64_t ShardCosts::HeadRowCapacity(const WorkerProfile& worker, const ShardSpec& beside) const {
  // Not through Bytes: a search of sizes that are hardly asked for again.
  const auto fits = [&](int64_t rows) {
    ShardSpec spec = beside;
    spec.head_rows = {0, rows};
    return model::MeasureShard(model_, footprint_, spec, limits_).total() <= worker.memory_bytes;
  };
  int64_t low = 0;  // fits, or is 0
  int64_t high = vocab_size();
  while (low < high) {
    const int64_t middle = low + (high - low + 1) / 2;
    if (fits(middle)) {
      low = middle;
    } else {
      high = middle - 1;
    }
  }
  return low;
}

int64_t ShardCosts::SmallestLayerBytes() const {
  int64_t smallest = std::numeric_limits<int64_t>::max();
  for (int64_t layer = 0; layer < layer_count(); ++layer) {
    smallest = std::min(smallest, Bytes({.layers = {layer, layer + 1}, .head_rows = {}}).total());
  }
  return smallest;
}

}  // namespace renga::partition

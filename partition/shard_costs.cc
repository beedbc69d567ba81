#include "partition/shard_costs.h"

#include <algorithm>
#include <limits>

namespace renga::partition {

using model::Range;
using model::ShardSpec;

model::ShardBytes ShardCosts::Bytes(const ShardSpec& spec) const {
  const Key key(spec.layers.begin, spec.layers.end, spec.head_rows.size());
  const auto known = bytes_.find(key);
  if (known != bytes_.end()) return known->second;
  return bytes_.emplace(key, model::MeasureShard(model_, footprint_, spec, limits_)).first->second;
}

int64_t ShardCosts::HeadRowCapacity(const WorkerProfile& worker, const Range& layers) const {
  // Not through Bytes: a search of sizes that are hardly asked for again.
  const auto fits = [&](int64_t rows) {
    const ShardSpec spec{.layers = layers, .head_rows = {0, rows}};
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

// How many bytes a shard takes, as model::MeasureShard says, for a search that asks for thousands
// of shards: what does not depend on the layers is measured once, the rest are sums over layers.
#ifndef RENGA_PARTITION_SHARD_COSTS_H_
#define RENGA_PARTITION_SHARD_COSTS_H_

#include <cstdint>
#include <optional>
#include <tuple>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "model/architecture.h"
#include "model/footprint.h"
#include "model/shard_spec.h"
#include "partition/plan.h"

namespace renga::partition {

// Not thread-safe. What it is made from outlives it.
class ShardCosts {
 public:
  ShardCosts(const model::Model& model, const model::ModelFootprint& footprint,
             const model::RuntimeLimits& limits)
      : model_(model), footprint_(footprint), limits_(limits) {}

  model::ShardBytes Bytes(const model::ShardSpec& spec) const;
  bool Fits(const WorkerProfile& worker, const model::ShardSpec& spec) const {
    return Bytes(spec).total() <= worker.memory_bytes;
  }
  // The most rows of the output matrix that fit beside `beside`, which has none; 0 when none does.
  int64_t HeadRowCapacity(const WorkerProfile& worker, const model::ShardSpec& beside) const;
  // The least memory that holds one layer, whichever is smallest.
  int64_t SmallestLayerBytes() const;

  int64_t layer_count() const { return model_.config.n_layers; }
  int64_t vocab_size() const { return model_.config.vocab_size; }
  const model::ModelConfig& config() const { return model_.config; }
  const model::ModelFootprint& footprint() const { return footprint_; }
  const model::RuntimeLimits& limits() const { return limits_; }

 private:
  // Shards that differ in their layers only.
  struct Family {
    model::ShardBytes without_layers;
    int64_t kv_per_layer = 0;
    std::vector<int64_t> weights_before;  // (layers + 1): of layers [0, l)
  };
  // Bytes depend on how many head rows there are, not on which.
  using Key = std::tuple<bool, int64_t, int64_t, int64_t, int64_t, int64_t, bool>;

  const Family& FamilyOf(const model::ShardSpec& spec) const;
  Family MeasureFamily(const model::ShardSpec& spec) const;

  const model::Model& model_;
  const model::ModelFootprint& footprint_;
  const model::RuntimeLimits limits_;
  mutable absl::flat_hash_map<Key, Family> families_;
};

}  // namespace renga::partition

#endif  // RENGA_PARTITION_SHARD_COSTS_H_

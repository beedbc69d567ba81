// What a shard costs on a worker: bytes by model::MeasureShard, time by the worker's speed.
// Answers are kept, since a search asks for the same shards again and again.
#ifndef RENGA_PARTITION_SHARD_COSTS_H_
#define RENGA_PARTITION_SHARD_COSTS_H_

#include <cstdint>
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
  // To read the shard's weights once.
  double Milliseconds(const WorkerProfile& worker, const model::ShardSpec& spec) const {
    return static_cast<double>(Bytes(spec).weights) / worker.bytes_per_second * 1e3;
  }
  // Time of `rows` rows of the output matrix alone.
  double HeadMilliseconds(const WorkerProfile& worker, int64_t rows) const {
    return static_cast<double>(rows * footprint_.head_row_bytes) / worker.bytes_per_second * 1e3;
  }
  // The most rows of the output matrix that fit beside `layers`; 0 when none does.
  int64_t HeadRowCapacity(const WorkerProfile& worker, const model::Range& layers) const;
  // The least memory that holds one layer, whichever is smallest.
  int64_t SmallestLayerBytes() const;

  int64_t layer_count() const { return model_.config.n_layers; }
  int64_t vocab_size() const { return model_.config.vocab_size; }
  const model::RuntimeLimits& limits() const { return limits_; }

 private:
  const model::Model& model_;
  const model::ModelFootprint& footprint_;
  const model::RuntimeLimits limits_;
  // Bytes depend on how many head rows there are, not on which.
  using Key = std::tuple<int64_t, int64_t, int64_t>;
  mutable absl::flat_hash_map<Key, model::ShardBytes> bytes_;
};

}  // namespace renga::partition

#endif  // RENGA_PARTITION_SHARD_COSTS_H_

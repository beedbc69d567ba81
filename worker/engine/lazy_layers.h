// The matrices of a lazy shard's layers, and how they share the memory that there is.
//
// What every step uses is pinned or streamed (residency.h). Of a mixture of experts that does not
// fit the experts alone come and go (expert_cache.h) and everything else is pinned.
#ifndef RENGA_WORKER_ENGINE_LAZY_LAYERS_H_
#define RENGA_WORKER_ENGINE_LAZY_LAYERS_H_

#include <cstdint>
#include <memory>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "model/architecture.h"
#include "model/residency_plan.h"
#include "model/shard_spec.h"
#include "worker/engine/bundle.h"
#include "worker/engine/expert_cache.h"
#include "worker/engine/residency.h"
#include "worker/engine/shard.h"
#include "worker/engine/weight_loader.h"
#include "worker/kernels/backend.h"

namespace renga::engine {

// Both are null where all matrices are loaded before the shard is there.
struct LazyLayers {
  std::unique_ptr<Residency> residency;
  std::unique_ptr<ExpertCache> experts;  // null: the residency has them, or there are none

  int64_t layers = 0;
  int64_t reserve_bytes = 0;  // what the whole shard takes with them
  int64_t load_bytes = 0;     // of their matrices, in the source
  // Of experts that come and go, what a token misses if all are used alike.
  int64_t missed_bytes = 0;

  // What is read before the shard is there, of what the disk does not have packed.
  int64_t UnpackedBytes() const;
  absl::Status Pack(WeightLoader& loader);
  absl::Status Start();
  ResidencyReport report() const;
};

// `bytes` is what the whole shard would take, `available` what there is. kResourceExhausted when
// not even what must stay in memory fits; errors of the source.
absl::StatusOr<LazyLayers> PlanLazyLayers(const model::Model& model, const model::ShardSpec& spec,
                                          int64_t bytes, int64_t available,
                                          kernels::Backend* backend, WeightSource* source);

}  // namespace renga::engine

#endif  // RENGA_WORKER_ENGINE_LAZY_LAYERS_H_

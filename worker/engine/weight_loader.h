// Brings tensors from a WeightSource into a backend's memory, through a small staging buffer.
#ifndef RENGA_WORKER_ENGINE_WEIGHT_LOADER_H_
#define RENGA_WORKER_ENGINE_WEIGHT_LOADER_H_

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "model/architecture.h"
#include "model/shard_spec.h"
#include "worker/engine/shard.h"
#include "worker/kernels/backend.h"

namespace renga::engine {

inline constexpr int64_t kMaxStagingBytes = int64_t{4} << 20;

// Bytes of all rows of a tensor as stored. kInvalidArgument when it must be F32 and isn't.
absl::StatusOr<int64_t> StoredBytes(const model::TensorSpec& tensor, WeightSource& source);

// Not thread-safe; lives while one shard is loaded.
class WeightLoader {
 public:
  // `total_bytes` of weights will be loaded in all, for `progress` (which may be null).
  WeightLoader(kernels::Backend* backend, WeightSource* source, const LoadProgress& progress,
               int64_t total_bytes)
      : backend_(backend), source_(source), progress_(progress), total_bytes_(total_bytes) {}

  // Rows [rows.begin, rows.end) of the tensor as a matrix of their own. kCancelled when `progress`
  // says so.
  absl::StatusOr<std::unique_ptr<kernels::WeightMatrix>> LoadMatrix(const model::TensorSpec& tensor,
                                                                    const model::Range& rows);

  // A tensor of one row of float32.
  absl::StatusOr<std::unique_ptr<kernels::Buffer>> LoadVector(const model::TensorSpec& tensor);

 private:
  // The next `bytes` of the tensor; valid until the next call.
  absl::StatusOr<std::span<const std::byte>> Stage(const model::TensorSpec& tensor, int64_t offset,
                                                   int64_t bytes);
  absl::Status Advance(int64_t bytes);

  kernels::Backend* const backend_;
  WeightSource* const source_;
  const LoadProgress& progress_;
  const int64_t total_bytes_;
  int64_t done_bytes_ = 0;
  std::vector<std::byte> staging_;
};

}  // namespace renga::engine

#endif  // RENGA_WORKER_ENGINE_WEIGHT_LOADER_H_

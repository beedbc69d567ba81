// Brings tensors from a WeightSource into a backend's memory, through two small staging buffers:
// one is read into while the other is taken over.
#ifndef RENGA_WORKER_ENGINE_WEIGHT_LOADER_H_
#define RENGA_WORKER_ENGINE_WEIGHT_LOADER_H_

#include <array>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <future>
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

// Of each of the two buffers.
inline constexpr int64_t kMaxStagingBytes = int64_t{2} << 20;

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
  // Begins to read a chunk of the tensor, on another thread, into the buffer that is not in use.
  absl::Status StartRead(const model::TensorSpec& tensor, int64_t offset, int64_t bytes);
  // Waits for it; valid until the chunk after the next is begun.
  absl::StatusOr<std::span<const std::byte>> FinishRead();
  // Reads the tensor's bytes [offset, offset + bytes) in chunks of `chunk` and hands each to
  // `take`, with where in these bytes it begins.
  absl::Status ReadChunks(
      const model::TensorSpec& tensor, int64_t offset, int64_t bytes, int64_t chunk,
      const std::function<absl::Status(int64_t, std::span<const std::byte>)>& take);
  absl::Status Advance(int64_t bytes);

  kernels::Backend* const backend_;
  WeightSource* const source_;
  const LoadProgress& progress_;
  const int64_t total_bytes_;
  int64_t done_bytes_ = 0;
  std::array<std::vector<std::byte>, 2> staging_;
  size_t reading_ = 0;  // which one was read into last
  std::span<std::byte> chunk_;
  std::future<absl::Status> read_;  // the last member: its end waits for the reader
};

}  // namespace renga::engine

#endif  // RENGA_WORKER_ENGINE_WEIGHT_LOADER_H_

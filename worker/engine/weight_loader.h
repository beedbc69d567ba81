// Brings tensors from a WeightSource into a backend's memory, through two small staging buffers:
// one is read into while the other is taken over. Matrices come by several threads where both the
// source and the backend are for it (parallel_reader.h).
//
// Sources check what they read piece by piece, so reads begin and end at multiples of a piece's
// size where they can; the part of a row at a buffer's end moves to the other buffer's beginning.
#ifndef RENGA_WORKER_ENGINE_WEIGHT_LOADER_H_
#define RENGA_WORKER_ENGINE_WEIGHT_LOADER_H_

#include <array>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "base/data_type.h"
#include "model/architecture.h"
#include "model/layer_slice.h"
#include "model/shard_spec.h"
#include "worker/engine/parallel_reader.h"
#include "worker/engine/read_ahead.h"
#include "worker/engine/shard.h"
#include "worker/kernels/backend.h"

namespace renga::engine {

// What is read at a time, into each of the two buffers; rows may not be longer.
inline constexpr int64_t kMaxStagingBytes = int64_t{2} << 20;

// Bytes of that many rows and columns of a tensor as stored. kInvalidArgument when it must be F32
// and isn't, or when the columns are not whole blocks.
absl::StatusOr<int64_t> StoredBytes(const model::TensorSpec& tensor, const model::TensorPart& part,
                                    WeightSource& source);

// Not thread-safe; lives while one shard is loaded.
class WeightLoader {
 public:
  // `total_bytes` of weights will be loaded in all, for `progress` (which may be null).
  WeightLoader(kernels::Backend* backend, WeightSource* source, const LoadProgress& progress,
               int64_t total_bytes)
      : backend_(backend),
        source_(source),
        progress_(progress),
        total_bytes_(total_bytes),
        reader_(source) {}

  // A part of the tensor, not empty, as a matrix of its own, packed already where the source has it
  // so. Columns must be whole blocks of the type. kCancelled when `progress` says so.
  absl::StatusOr<std::unique_ptr<kernels::WeightMatrix>> LoadMatrix(const model::TensorSpec& tensor,
                                                                    const model::TensorPart& part);

  // The same, never as the source has it packed, and no part of TakeNewlyPacked.
  absl::StatusOr<std::unique_ptr<kernels::WeightMatrix>> PackMatrix(const model::TensorSpec& tensor,
                                                                    const model::TensorPart& part);

  // Makes a row as stored into one of another type, which `out` has the size of.
  struct RowFormat {
    base::DataType type = base::DataType::kInvalid;
    std::function<void(std::span<const std::byte> stored, std::span<std::byte> out)> convert;
  };
  // Some rows of `range`, ascending and not empty, as one matrix, of another format where `as` is
  // not null. The whole range is read. Never as the source has it packed. kInvalidArgument where
  // the other format's blocks do not fit the rows.
  absl::StatusOr<std::unique_ptr<kernels::WeightMatrix>> LoadRowSet(const model::TensorSpec& tensor,
                                                                    const model::Range& range,
                                                                    std::span<const int32_t> rows,
                                                                    const RowFormat* as = nullptr);

  // A part, not empty, of a tensor of one row of float32.
  absl::StatusOr<std::unique_ptr<kernels::Buffer>> LoadVector(const model::TensorSpec& tensor,
                                                              const model::TensorPart& part);

  absl::StatusOr<base::DataType> TensorType(const model::TensorSpec& tensor) {
    return source_->TensorType(tensor.name);
  }

  // All of a tensor as it is stored, into `out`, which has its size.
  absl::Status LoadStored(const model::TensorSpec& tensor, std::span<std::byte> out);

  // Shard::newly_packed of what LoadMatrix has loaded so far.
  std::vector<HeldMatrix> TakeNewlyPacked() { return std::move(newly_packed_); }

 private:
  using Take = std::function<absl::Status(int64_t, std::span<const std::byte>)>;

  // Reads the tensor's bytes [begin, end) and hands them to `take` in pieces of whole `unit` bytes,
  // with how many came before.
  absl::Status ReadUnits(const model::TensorSpec& tensor, int64_t begin, int64_t end, int64_t unit,
                         const Take& take);
  // The same with several threads, which call `take` at once.
  absl::Status ReadUnitsInParallel(const model::TensorSpec& tensor, int64_t begin, int64_t end,
                                   int64_t unit, const Take& take);
  // Starts to read [from, to) behind `room` bytes in the buffer that is not in use.
  absl::Status StartRead(const model::TensorSpec& tensor, int64_t from, int64_t to, int64_t room);
  absl::Status Advance(int64_t bytes);
  // Null when the source has no packed bytes of it.
  absl::StatusOr<std::unique_ptr<kernels::WeightMatrix>> AdoptMatrix(const MatrixKey& key);
  absl::StatusOr<MatrixKey> KeyOf(const model::TensorSpec& tensor, const model::TensorPart& part);
  absl::StatusOr<std::unique_ptr<kernels::WeightMatrix>> Pack(const model::TensorSpec& tensor,
                                                              const MatrixKey& key);

  kernels::Backend* const backend_;
  WeightSource* const source_;
  const LoadProgress& progress_;
  const int64_t total_bytes_;
  int64_t done_bytes_ = 0;
  std::vector<HeldMatrix> newly_packed_;
  std::array<std::vector<std::byte>, 2> staging_;
  size_t reading_ = 0;                               // which one was read into last
  std::unique_ptr<ParallelReader> parallel_reader_;  // null until it is used first
  ReadAhead reader_;  // the last member: its end waits for the reader
};

}  // namespace renga::engine

#endif  // RENGA_WORKER_ENGINE_WEIGHT_LOADER_H_

#include "worker/engine/weight_loader.h"

#include <algorithm>
#include <system_error>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/data_type.h"
#include "base/status_macros.h"

namespace renga::engine {
namespace {

absl::StatusOr<base::DataType> CheckedType(const model::TensorSpec& tensor, WeightSource& source) {
  RENGA_ASSIGN_OR_RETURN(const base::DataType type, source.TensorType(tensor.name));
  if (type == base::DataType::kInvalid) {
    return absl::InvalidArgumentError(absl::StrCat("tensor ", tensor.name, " has no valid type"));
  }
  if (tensor.must_be_f32 && type != base::DataType::kF32) {
    return absl::InvalidArgumentError(absl::StrCat("tensor ", tensor.name, " must be F32, but is ",
                                                   base::GetDataTypeInfo(type).name));
  }
  return type;
}

}  // namespace

absl::StatusOr<int64_t> StoredBytes(const model::TensorSpec& tensor, WeightSource& source) {
  RENGA_ASSIGN_OR_RETURN(const base::DataType type, CheckedType(tensor, source));
  RENGA_ASSIGN_OR_RETURN(const int64_t row_bytes, base::RowBytes(type, tensor.columns));
  int64_t bytes = 0;
  if (__builtin_mul_overflow(row_bytes, tensor.rows, &bytes)) {
    return absl::InvalidArgumentError(absl::StrCat("tensor ", tensor.name, " is too large"));
  }
  return bytes;
}

absl::StatusOr<std::unique_ptr<kernels::WeightMatrix>> WeightLoader::LoadMatrix(
    const model::TensorSpec& tensor, const model::Range& rows) {
  RENGA_ASSIGN_OR_RETURN(const base::DataType type, CheckedType(tensor, *source_));
  RENGA_ASSIGN_OR_RETURN(const int64_t row_bytes, base::RowBytes(type, tensor.columns));
  if (row_bytes > kMaxStagingBytes) {
    return absl::UnimplementedError(absl::StrCat("tensor ", tensor.name, " has rows of ", row_bytes,
                                                 " bytes, at most ", kMaxStagingBytes,
                                                 " can be loaded"));
  }
  auto matrix = backend_->CreateMatrix(type, rows.size(), tensor.columns);
  if (!matrix.ok()) return base::Annotate(matrix.status(), tensor.name);
  RENGA_RETURN_IF_ERROR(ReadChunks(
      tensor, rows.begin * row_bytes, rows.size() * row_bytes,
      kMaxStagingBytes / row_bytes * row_bytes,
      [&](int64_t done, std::span<const std::byte> bytes) {
        return base::Annotate(backend_->LoadRows(**matrix, done / row_bytes, bytes), tensor.name);
      }));
  return matrix;
}

absl::StatusOr<std::unique_ptr<kernels::Buffer>> WeightLoader::LoadVector(
    const model::TensorSpec& tensor) {
  RENGA_ASSIGN_OR_RETURN(const int64_t size, StoredBytes(tensor, *source_));
  RENGA_ASSIGN_OR_RETURN(auto buffer, backend_->Allocate(size));
  RENGA_RETURN_IF_ERROR(ReadChunks(
      tensor, 0, size, kMaxStagingBytes, [&](int64_t done, std::span<const std::byte> bytes) {
        return base::Annotate(backend_->Upload(bytes, *buffer, done), tensor.name);
      }));
  return buffer;
}

absl::Status WeightLoader::ReadChunks(
    const model::TensorSpec& tensor, int64_t offset, int64_t bytes, int64_t chunk,
    const std::function<absl::Status(int64_t, std::span<const std::byte>)>& take) {
  if (bytes <= 0) return absl::OkStatus();
  RENGA_RETURN_IF_ERROR(StartRead(tensor, offset, std::min(chunk, bytes)));
  for (int64_t done = 0; done < bytes;) {
    RENGA_ASSIGN_OR_RETURN(const std::span<const std::byte> now, FinishRead());
    const int64_t next = done + static_cast<int64_t>(now.size());
    if (next < bytes) {
      RENGA_RETURN_IF_ERROR(StartRead(tensor, offset + next, std::min(chunk, bytes - next)));
    }
    RENGA_RETURN_IF_ERROR(take(done, now));
    RENGA_RETURN_IF_ERROR(Advance(next - done));
    done = next;
  }
  return absl::OkStatus();
}

absl::Status WeightLoader::StartRead(const model::TensorSpec& tensor, int64_t offset,
                                     int64_t bytes) {
  // An upload may still be reading what was staged before.
  RENGA_RETURN_IF_ERROR(backend_->Synchronize());
  reading_ = 1 - reading_;
  std::vector<std::byte>& buffer = staging_[reading_];
  if (static_cast<int64_t>(buffer.size()) < bytes) buffer.resize(static_cast<size_t>(bytes));
  chunk_ = std::span(buffer).first(static_cast<size_t>(bytes));
  const auto read = [source = source_, name = tensor.name, offset, out = chunk_] {
    return source->Read(name, offset, out);
  };
  try {
    read_ = std::async(std::launch::async, read);
  } catch (const std::system_error&) {
    // The system allows no more threads: this one reads, when it is asked for the chunk.
    read_ = std::async(std::launch::deferred, read);
  }
  return absl::OkStatus();
}

absl::StatusOr<std::span<const std::byte>> WeightLoader::FinishRead() {
  RENGA_RETURN_IF_ERROR(read_.get());
  return chunk_;
}

absl::Status WeightLoader::Advance(int64_t bytes) {
  done_bytes_ += bytes;
  if (progress_ && !progress_(done_bytes_, total_bytes_)) {
    return absl::CancelledError("loading was cancelled");
  }
  return absl::OkStatus();
}

}  // namespace renga::engine

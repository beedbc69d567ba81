#include "worker/engine/weight_loader.h"

#include <algorithm>
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
  const int64_t rows_at_once = kMaxStagingBytes / row_bytes;
  for (int64_t done = 0; done < rows.size(); done += rows_at_once) {
    const int64_t count = std::min(rows_at_once, rows.size() - done);
    RENGA_ASSIGN_OR_RETURN(const std::span<const std::byte> bytes,
                           Stage(tensor, (rows.begin + done) * row_bytes, count * row_bytes));
    RENGA_RETURN_IF_ERROR(base::Annotate(backend_->LoadRows(**matrix, done, bytes), tensor.name));
    RENGA_RETURN_IF_ERROR(Advance(count * row_bytes));
  }
  return matrix;
}

absl::StatusOr<std::unique_ptr<kernels::Buffer>> WeightLoader::LoadVector(
    const model::TensorSpec& tensor) {
  RENGA_ASSIGN_OR_RETURN(const int64_t size, StoredBytes(tensor, *source_));
  RENGA_ASSIGN_OR_RETURN(auto buffer, backend_->Allocate(size));
  for (int64_t done = 0; done < size; done += kMaxStagingBytes) {
    const int64_t count = std::min(kMaxStagingBytes, size - done);
    RENGA_ASSIGN_OR_RETURN(const std::span<const std::byte> bytes, Stage(tensor, done, count));
    RENGA_RETURN_IF_ERROR(base::Annotate(backend_->Upload(bytes, *buffer, done), tensor.name));
    RENGA_RETURN_IF_ERROR(Advance(count));
  }
  return buffer;
}

absl::StatusOr<std::span<const std::byte>> WeightLoader::Stage(const model::TensorSpec& tensor,
                                                               int64_t offset, int64_t bytes) {
  // An upload may still be reading what was staged before.
  RENGA_RETURN_IF_ERROR(backend_->Synchronize());
  if (static_cast<int64_t>(staging_.size()) < bytes) staging_.resize(bytes);
  const std::span<std::byte> staged = std::span(staging_).first(bytes);
  RENGA_RETURN_IF_ERROR(source_->Read(tensor.name, offset, staged));
  return staged;
}

absl::Status WeightLoader::Advance(int64_t bytes) {
  done_bytes_ += bytes;
  if (progress_ && !progress_(done_bytes_, total_bytes_)) {
    return absl::CancelledError("loading was cancelled");
  }
  return absl::OkStatus();
}

}  // namespace renga::engine

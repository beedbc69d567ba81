#include "worker/engine/weight_loader.h"

#include <algorithm>
#include <cstring>
#include <optional>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/data_type.h"
#include "base/status_macros.h"

namespace renga::engine {
namespace {

// Rows that lie on two pieces are put together in memory beside what was offered, a few for each
// thread that reads. Longer rows come one piece after the other.
constexpr int64_t kMostBytesOfCutRow = int64_t{128} << 10;

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

// Bytes [begin, end) of each row, side by side in `cut`.
std::span<const std::byte> CutColumns(std::span<const std::byte> rows, int64_t row_bytes,
                                      int64_t begin, int64_t end, std::vector<std::byte>& cut) {
  const size_t width = static_cast<size_t>(end - begin);
  const size_t count = rows.size() / static_cast<size_t>(row_bytes);
  cut.resize(count * width);
  for (size_t row = 0; row < count; ++row) {
    std::memcpy(cut.data() + row * width,
                rows.data() + row * static_cast<size_t>(row_bytes) + begin, width);
  }
  return cut;
}

}  // namespace

absl::StatusOr<int64_t> StoredBytes(const model::TensorSpec& tensor, const model::TensorPart& part,
                                    WeightSource& source) {
  RENGA_ASSIGN_OR_RETURN(const base::DataType type, CheckedType(tensor, source));
  RENGA_ASSIGN_OR_RETURN(const int64_t row_bytes, base::RowBytes(type, part.columns.size()));
  int64_t bytes = 0;
  if (__builtin_mul_overflow(row_bytes, part.rows.size(), &bytes)) {
    return absl::InvalidArgumentError(absl::StrCat("tensor ", tensor.name, " is too large"));
  }
  return bytes;
}

absl::StatusOr<MatrixKey> WeightLoader::KeyOf(const model::TensorSpec& tensor,
                                              const model::TensorPart& part) {
  RENGA_ASSIGN_OR_RETURN(const base::DataType type, CheckedType(tensor, *source_));
  RENGA_ASSIGN_OR_RETURN(const int64_t row_bytes, base::RowBytes(type, tensor.columns));
  if (row_bytes > kMaxStagingBytes) {
    return absl::UnimplementedError(absl::StrCat("tensor ", tensor.name, " has rows of ", row_bytes,
                                                 " bytes, at most ", kMaxStagingBytes,
                                                 " can be loaded"));
  }
  return MatrixKey{.tensor = tensor.name, .type = type, .rows = part.rows, .columns = part.columns};
}

absl::StatusOr<std::unique_ptr<kernels::WeightMatrix>> WeightLoader::LoadMatrix(
    const model::TensorSpec& tensor, const model::TensorPart& part) {
  RENGA_ASSIGN_OR_RETURN(const MatrixKey key, KeyOf(tensor, part));
  auto matrix = AdoptMatrix(key);
  if (!matrix.ok()) return base::Annotate(matrix.status(), tensor.name);
  if (*matrix == nullptr) {
    RENGA_ASSIGN_OR_RETURN(matrix, Pack(tensor, key));
    const std::span<const std::byte> bytes = backend_->BytesOf(**matrix);
    if (!bytes.empty()) newly_packed_.push_back({.key = key, .bytes = bytes});
    return matrix;
  }
  RENGA_ASSIGN_OR_RETURN(const int64_t row_bytes, base::RowBytes(key.type, tensor.columns));
  RENGA_RETURN_IF_ERROR(Advance(part.rows.size() * row_bytes));
  return matrix;
}

absl::StatusOr<std::unique_ptr<kernels::WeightMatrix>> WeightLoader::PackMatrix(
    const model::TensorSpec& tensor, const model::TensorPart& part) {
  RENGA_ASSIGN_OR_RETURN(const MatrixKey key, KeyOf(tensor, part));
  return Pack(tensor, key);
}

absl::StatusOr<std::unique_ptr<kernels::WeightMatrix>> WeightLoader::AdoptMatrix(
    const MatrixKey& key) {
  if (backend_->layout_name().empty()) return nullptr;
  const int64_t rows = key.rows.size();
  const int64_t columns = key.columns.size();
  std::optional<kernels::PackedBytes> packed =
      source_->FindPacked(key, backend_->MatrixBytes(key.type, rows, columns));
  if (!packed.has_value()) return nullptr;
  return backend_->AdoptMatrix(key.type, rows, columns, *std::move(packed));
}

absl::StatusOr<std::unique_ptr<kernels::WeightMatrix>> WeightLoader::Pack(
    const model::TensorSpec& tensor, const MatrixKey& key) {
  RENGA_ASSIGN_OR_RETURN(const int64_t row_bytes, base::RowBytes(key.type, tensor.columns));
  auto matrix = backend_->CreateMatrix(key.type, key.rows.size(), key.columns.size());
  if (!matrix.ok()) return base::Annotate(matrix.status(), tensor.name);
  RENGA_ASSIGN_OR_RETURN(const int64_t begin, base::RowBytes(key.type, key.columns.begin));
  RENGA_ASSIGN_OR_RETURN(const int64_t end, base::RowBytes(key.type, key.columns.end));
  if (backend_->loading_threads() > 1 && source_->ReadsAtOnce() &&
      row_bytes <= kMostBytesOfCutRow) {
    RENGA_RETURN_IF_ERROR(ReadUnitsInParallel(
        tensor, key.rows.begin * row_bytes, key.rows.end * row_bytes, row_bytes,
        [&](int64_t done, std::span<const std::byte> rows) -> absl::Status {
          std::vector<std::byte> cut;
          if (end - begin < row_bytes) rows = CutColumns(rows, row_bytes, begin, end, cut);
          return base::Annotate(backend_->LoadRowsAlone(**matrix, done / row_bytes, rows),
                                tensor.name);
        }));
    return matrix;
  }
  std::vector<std::byte> cut;
  const auto load = [&](int64_t done, std::span<const std::byte> rows) -> absl::Status {
    if (end - begin < row_bytes) rows = CutColumns(rows, row_bytes, begin, end, cut);
    return base::Annotate(backend_->LoadRows(**matrix, done / row_bytes, rows), tensor.name);
  };
  RENGA_RETURN_IF_ERROR(
      ReadUnits(tensor, key.rows.begin * row_bytes, key.rows.end * row_bytes, row_bytes, load));
  return matrix;
}

absl::StatusOr<std::unique_ptr<kernels::WeightMatrix>> WeightLoader::LoadRowSet(
    const model::TensorSpec& tensor, const model::Range& range, std::span<const int32_t> rows,
    const RowFormat* as) {
  model::TensorPart part = model::WholeTensor(tensor);
  part.rows = range;
  RENGA_ASSIGN_OR_RETURN(const MatrixKey key, KeyOf(tensor, part));
  RENGA_ASSIGN_OR_RETURN(const int64_t row_bytes, base::RowBytes(key.type, tensor.columns));
  const base::DataType type = as == nullptr ? key.type : as->type;
  RENGA_ASSIGN_OR_RETURN(const int64_t out_bytes, base::RowBytes(type, tensor.columns));
  auto matrix = backend_->CreateMatrix(type, static_cast<int64_t>(rows.size()), tensor.columns);
  if (!matrix.ok()) return base::Annotate(matrix.status(), tensor.name);
  std::vector<std::byte> chosen;
  size_t taken = 0;
  RENGA_RETURN_IF_ERROR(ReadUnits(
      tensor, range.begin * row_bytes, range.end * row_bytes, row_bytes,
      [&](int64_t done, std::span<const std::byte> bytes) {
        // The last piece may still be read by an upload.
        if (const absl::Status idle = backend_->Synchronize(); !idle.ok()) return idle;
        chosen.clear();
        const size_t first = taken;
        const int64_t begin = range.begin + done / row_bytes;
        const int64_t end = begin + static_cast<int64_t>(bytes.size()) / row_bytes;
        for (; taken < rows.size() && rows[taken] < end; ++taken) {
          const auto row = bytes.subspan(static_cast<size_t>((rows[taken] - begin) * row_bytes),
                                         static_cast<size_t>(row_bytes));
          if (as == nullptr) {
            chosen.insert(chosen.end(), row.begin(), row.end());
            continue;
          }
          chosen.resize(chosen.size() + static_cast<size_t>(out_bytes));
          as->convert(row, std::span(chosen).last(static_cast<size_t>(out_bytes)));
        }
        if (chosen.empty()) return absl::OkStatus();
        return base::Annotate(backend_->LoadRows(**matrix, static_cast<int64_t>(first), chosen),
                              tensor.name);
      }));
  RENGA_RETURN_IF_ERROR(backend_->Synchronize());
  return matrix;
}

absl::StatusOr<std::unique_ptr<kernels::Buffer>> WeightLoader::LoadVector(
    const model::TensorSpec& tensor, const model::TensorPart& part) {
  RENGA_ASSIGN_OR_RETURN(const int64_t size, StoredBytes(tensor, part, *source_));
  RENGA_ASSIGN_OR_RETURN(auto buffer, backend_->Allocate(size));
  const int64_t begin = part.columns.begin * static_cast<int64_t>(sizeof(float));
  RENGA_RETURN_IF_ERROR(ReadUnits(
      tensor, begin, begin + size, 1, [&](int64_t done, std::span<const std::byte> bytes) {
        return base::Annotate(backend_->Upload(bytes, *buffer, done), tensor.name);
      }));
  return buffer;
}

absl::Status WeightLoader::LoadStored(const model::TensorSpec& tensor, std::span<std::byte> out) {
  return ReadUnits(tensor, 0, static_cast<int64_t>(out.size()), 1,
                   [&](int64_t done, std::span<const std::byte> bytes) {
                     std::copy(bytes.begin(), bytes.end(), out.begin() + done);
                     return absl::OkStatus();
                   });
}

absl::Status WeightLoader::ReadUnits(const model::TensorSpec& tensor, int64_t begin, int64_t end,
                                     int64_t unit, const Take& take) {
  if (begin >= end) return absl::OkStatus();
  // Where a read that begins at `from` ends.
  const auto read_end = [end](int64_t from) {
    return std::min(end, (from + kMaxStagingBytes) / kReadAlignment * kReadAlignment);
  };
  int64_t from = begin;
  int64_t to = read_end(from);
  size_t kept = 0;  // bytes of a unit that the reads before have brought
  RENGA_RETURN_IF_ERROR(StartRead(tensor, from, to, unit));
  while (true) {
    RENGA_RETURN_IF_ERROR(reader_.Finish());
    std::span<const std::byte> now(staging_[reading_]);
    now = now.subspan(static_cast<size_t>(unit) - kept, kept + static_cast<size_t>(to - from));
    const int64_t done = to - begin - static_cast<int64_t>(now.size());
    kept = static_cast<size_t>((to - begin) % unit);
    if (to < end) {
      RENGA_RETURN_IF_ERROR(StartRead(tensor, to, read_end(to), unit));
      std::memcpy(staging_[reading_].data() + unit - kept, now.last(kept).data(), kept);
    }
    if (now.size() > kept) RENGA_RETURN_IF_ERROR(take(done, now.first(now.size() - kept)));
    RENGA_RETURN_IF_ERROR(Advance(to - from));
    if (to == end) return absl::OkStatus();
    from = to;
    to = read_end(from);
  }
}

absl::Status WeightLoader::ReadUnitsInParallel(const model::TensorSpec& tensor, int64_t begin,
                                               int64_t end, int64_t unit, const Take& take) {
  if (parallel_reader_ == nullptr) {
    parallel_reader_ = std::make_unique<ParallelReader>(source_, backend_->loading_threads());
  }
  return parallel_reader_->Read(tensor.name, begin, end, unit, take,
                                [&](int64_t bytes) { return Advance(bytes); });
}

absl::Status WeightLoader::StartRead(const model::TensorSpec& tensor, int64_t from, int64_t to,
                                     int64_t room) {
  // An upload may still be reading what was staged before.
  RENGA_RETURN_IF_ERROR(backend_->Synchronize());
  reading_ = 1 - reading_;
  std::vector<std::byte>& buffer = staging_[reading_];
  const auto bytes = static_cast<size_t>(room + to - from);
  if (buffer.size() < bytes) buffer.resize(bytes);
  reader_.Start(tensor.name, from, std::span(buffer).subspan(room, bytes - room));
  return absl::OkStatus();
}

absl::Status WeightLoader::Advance(int64_t bytes) {
  done_bytes_ += bytes;
  if (progress_ && !progress_(done_bytes_, total_bytes_)) {
    return absl::CancelledError("loading was cancelled");
  }
  return absl::OkStatus();
}

}  // namespace renga::engine

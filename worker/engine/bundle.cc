#include "worker/engine/bundle.h"

#include <cstring>
#include <span>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "base/data_type.h"
#include "base/direct_file.h"
#include "base/status_macros.h"

namespace renga::engine {
namespace {

constexpr int kReadAttempts = 3;
constexpr absl::Duration kReadRetryDelay = absl::Milliseconds(50);

bool MayPass(const absl::Status& failure) {
  return !failure.ok() && !absl::IsDataLoss(failure) && !absl::IsNotFound(failure) &&
         !absl::IsOutOfRange(failure);
}

}  // namespace

int64_t BundleMatrix::RoomBytes() const { return base::RoundUpToDirect(bytes); }

int64_t Bundle::RoomBytes() const {
  int64_t bytes = 0;
  for (const BundleMatrix& matrix : matrices) bytes += matrix.RoomBytes();
  return bytes;
}

BundleFiles OpenBundle(const Bundle& bundle, WeightSource& source) {
  BundleFiles files;
  for (const BundleMatrix& matrix : bundle.matrices) {
    files.push_back(source.OpenPacked(matrix.key, matrix.bytes));
  }
  return files;
}

int64_t UnpackedBytes(const Bundle& bundle, const BundleFiles& files) {
  int64_t bytes = 0;
  for (size_t i = 0; i < files.size(); ++i) {
    const BundleMatrix& matrix = bundle.matrices[i];
    if (files[i] != nullptr) continue;
    const auto row_bytes = base::RowBytes(matrix.key.type, matrix.tensor.columns);
    if (row_bytes.ok()) bytes += *row_bytes * matrix.part.rows.size();
  }
  return bytes;
}

void AppendKeys(const Bundle& bundle, std::vector<MatrixKey>& keys) {
  for (const BundleMatrix& matrix : bundle.matrices) keys.push_back(matrix.key);
}

std::string NoPlaceOnDisk(absl::string_view what) {
  return absl::StrCat("weights that do not fit into memory need a place on disk, but ", what,
                      " cannot be kept there");
}

absl::Status PackToDisk(const BundleMatrix& matrix, kernels::Backend& backend, WeightSource& source,
                        WeightLoader& loader, std::unique_ptr<PackedFile>& file, std::byte* room) {
  file = nullptr;
  RENGA_ASSIGN_OR_RETURN(const auto packed, loader.PackMatrix(matrix.tensor, matrix.part));
  const std::span<const std::byte> bytes = backend.BytesOf(*packed);
  RENGA_RETURN_IF_ERROR(
      base::Annotate(source.KeepPacked(matrix.key, bytes), NoPlaceOnDisk(matrix.tensor.name)));
  file = source.OpenPacked(matrix.key, matrix.bytes);
  if (file == nullptr) {
    return absl::UnavailableError(
        absl::StrCat(matrix.tensor.name, " was written to disk and is not there"));
  }
  if (room != nullptr) std::memcpy(room, bytes.data(), bytes.size());
  return absl::OkStatus();
}

absl::Status ReadWithPatience(absl::FunctionRef<absl::Status()> read) {
  absl::Status status = read();
  for (int attempt = 1; attempt < kReadAttempts && MayPass(status); ++attempt) {
    absl::SleepFor(kReadRetryDelay);
    status = read();
  }
  return status;
}

absl::Status ReadBundle(const Bundle& bundle, const BundleFiles& files, std::byte* room) {
  for (size_t i = 0; i < files.size(); ++i) {
    const auto bytes = static_cast<size_t>(bundle.matrices[i].RoomBytes());
    RENGA_RETURN_IF_ERROR(base::Annotate(ReadWithPatience([&] {
                                           return files[i] != nullptr
                                                      ? files[i]->Read({room, bytes})
                                                      : absl::NotFoundError("it is not on disk");
                                         }),
                                         absl::StrCat("reading ", bundle.matrices[i].tensor.name)));
    room += bytes;
  }
  return absl::OkStatus();
}

std::vector<kernels::PackedBytes> BytesIn(const Bundle& bundle, std::byte* room) {
  std::vector<kernels::PackedBytes> bytes;
  for (const BundleMatrix& matrix : bundle.matrices) {
    bytes.push_back({.bytes = {room, static_cast<size_t>(matrix.bytes)}, .owner = nullptr});
    room += matrix.RoomBytes();
  }
  return bytes;
}

absl::StatusOr<std::vector<std::unique_ptr<kernels::WeightMatrix>>> AdoptBundle(
    const Bundle& bundle, std::vector<kernels::PackedBytes> bytes, kernels::Backend& backend) {
  std::vector<std::unique_ptr<kernels::WeightMatrix>> adopted;
  for (size_t i = 0; i < bytes.size(); ++i) {
    const MatrixKey& key = bundle.matrices[i].key;
    RENGA_ASSIGN_OR_RETURN(
        adopted.emplace_back(),
        backend.AdoptMatrix(key.type, key.rows.size(), key.columns.size(), std::move(bytes[i])));
  }
  return adopted;
}

}  // namespace renga::engine

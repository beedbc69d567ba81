#include "worker/service/piece_cache.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <filesystem>
#include <system_error>
#include <utility>

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "base/log.h"
#include "base/status_macros.h"
#include "transport/dialer.h"
#include "worker/service/disk_space.h"

namespace renga::worker {
namespace {

using transport::kPieceBytes;

// Pieces of the file with no hole in them. The last one may end where the file ends. Where a file
// system knows no holes, everything up to the file's end counts; the hashes tell the rest.
std::vector<bool> ReadStoredPieces(const std::string& path) {
  std::vector<bool> stored;
  const int fd = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (fd < 0) return stored;
  const off_t size = ::lseek(fd, 0, SEEK_END);
  for (off_t position = 0; position < size;) {
    const off_t data = ::lseek(fd, position, SEEK_DATA);
    if (data < 0) break;
    const off_t hole = ::lseek(fd, data, SEEK_HOLE);
    if (hole <= data) break;
    const auto first = static_cast<size_t>((data + kPieceBytes - 1) / kPieceBytes);
    const auto end = static_cast<size_t>(hole == size ? (hole + kPieceBytes - 1) / kPieceBytes
                                                      : hole / kPieceBytes);
    if (end > stored.size()) stored.resize(end);
    for (size_t piece = first; piece < end; ++piece) stored[piece] = true;
    position = hole;
  }
  ::close(fd);
  return stored;
}

}  // namespace

PieceCache::PieceCache(const std::string& directory, absl::string_view model_id)
    : keeps_(!directory.empty()),
      directory_(directory.empty()
                     ? ""
                     : absl::StrCat(directory, "/shards/", absl::BytesToHexString(model_id))) {}

std::string PieceCache::Path(uint32_t tensor) const {
  return absl::StrCat(directory_, "/", absl::StrFormat("%05d", tensor));
}

std::vector<bool>& PieceCache::Stored(uint32_t tensor) {
  const auto [found, inserted] = stored_.try_emplace(tensor);
  if (inserted) found->second = ReadStoredPieces(Path(tensor));
  return found->second;
}

bool PieceCache::MayHave(uint32_t tensor, uint32_t piece) {
  if (directory_.empty()) return false;
  const std::vector<bool>& stored = Stored(tensor);
  return piece < stored.size() && stored[piece];
}

absl::StatusOr<base::RandomAccessFile*> PieceCache::Open(uint32_t tensor,
                                                         base::RandomAccessFile::Mode mode) {
  if (file_ == nullptr || file_tensor_ != tensor || file_mode_ != mode) {
    file_.reset();
    RENGA_ASSIGN_OR_RETURN(file_, base::RandomAccessFile::Open(Path(tensor), mode));
    file_tensor_ = tensor;
    file_mode_ = mode;
  }
  return file_.get();
}

absl::Status PieceCache::Read(uint32_t tensor, uint32_t piece, std::span<std::byte> out) {
  RENGA_ASSIGN_OR_RETURN(base::RandomAccessFile * file,
                         Open(tensor, base::RandomAccessFile::Mode::kRead));
  return file->ReadAt(int64_t{piece} * kPieceBytes, out);
}

absl::Status PieceCache::ReadStored(uint32_t tensor, uint32_t piece, std::string& bytes) {
  RENGA_ASSIGN_OR_RETURN(base::RandomAccessFile * file,
                         Open(tensor, base::RandomAccessFile::Mode::kRead));
  RENGA_ASSIGN_OR_RETURN(const int64_t size, file->Size());
  const int64_t begin = int64_t{piece} * kPieceBytes;
  if (begin >= size) return absl::NotFoundError("the file has become shorter");
  bytes.resize(static_cast<size_t>(std::min(kPieceBytes, size - begin)));
  return file->ReadAt(begin, std::as_writable_bytes(std::span(bytes)));
}

void PieceCache::Forget(uint32_t tensor, uint32_t piece) {
  std::vector<bool>& stored = Stored(tensor);
  if (piece < stored.size()) stored[piece] = false;
}

void PieceCache::Write(uint32_t tensor, uint32_t piece, std::span<const std::byte> bytes) {
  if (!keeps_) return;
  absl::Status status = base::CreateDirectories(directory_);
  if (status.ok()) {
    status = CheckDiskSpace(directory_, left_bytes_ + static_cast<int64_t>(bytes.size()));
  }
  if (status.ok()) {
    const auto file = Open(tensor, base::RandomAccessFile::Mode::kReadWrite);
    status = file.ok() ? (*file)->WriteAt(int64_t{piece} * kPieceBytes, bytes) : file.status();
  }
  if (status.ok()) {
    std::vector<bool>& stored = Stored(tensor);
    if (piece >= stored.size()) stored.resize(size_t{piece} + 1);
    stored[piece] = true;
    return;
  }
  RENGA_LOG(WARNING) << "going on without a cache of the model: " << status.message();
  keeps_ = false;
}

bool PieceCache::GiveWay() {
  std::error_code error;
  if (directory_.empty() || !std::filesystem::exists(directory_, error)) return false;
  RENGA_LOG(WARNING) << "the disk is full: removing the model's pieces at " << directory_
                     << ", which can be fetched again";
  keeps_ = false;
  file_.reset();
  stored_.clear();
  const std::string removed = std::exchange(directory_, "");
  return std::filesystem::remove_all(removed, error) > 0 && !error;
}

}  // namespace renga::worker

#include "base/direct_file.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>

#include "absl/strings/str_cat.h"
#include "base/file.h"

namespace renga::base {
namespace {

// Measured on a virtual NVMe disk: 0.6 GB/s with reads of 1 MiB, 1.4 GB/s with 4 MiB, no more with
// longer ones or with two at a time.
constexpr int64_t kReadBytes = int64_t{4} << 20;

bool IsAligned(int64_t number) { return number % kDirectAlignment == 0; }

}  // namespace

absl::StatusOr<std::unique_ptr<DirectFile>> DirectFile::Open(const std::string& path) {
  bool direct = true;
  int fd = ::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_DIRECT);
  if (fd < 0 && errno == EINVAL) {
    direct = false;
    fd = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
  }
  if (fd < 0) return FileError(errno, "cannot open", path);
  return std::unique_ptr<DirectFile>(new DirectFile(path, fd, direct));
}

DirectFile::~DirectFile() { ::close(fd_); }

absl::StatusOr<int64_t> DirectFile::Size() const {
  struct stat info = {};
  if (::fstat(fd_, &info) != 0) return FileError(errno, "cannot stat", path_);
  return info.st_size;
}

bool DirectFile::FallBack() const {
  const int flags = ::fcntl(fd_, F_GETFL);
  if (flags < 0 || ::fcntl(fd_, F_SETFL, flags & ~O_DIRECT) != 0) return false;
  direct_ = false;
  return true;
}

absl::Status DirectFile::ReadAt(int64_t offset, std::span<std::byte> room, int64_t bytes) const {
  const auto room_bytes = static_cast<int64_t>(room.size());
  if (!IsAligned(offset) || !IsAligned(room_bytes) || bytes > room_bytes ||
      !IsAligned(static_cast<int64_t>(reinterpret_cast<uintptr_t>(room.data())))) {
    return absl::InvalidArgumentError(
        absl::StrCat("a direct read of ", bytes, " bytes at ", offset, " is not aligned: ", path_));
  }
  for (int64_t done = 0; done < bytes;) {
    const auto count = static_cast<size_t>(std::min(kReadBytes, RoundUpToDirect(bytes - done)));
    const ssize_t n = ::pread(fd_, room.data() + done, count, offset + done);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0 && errno == EINVAL && direct_ && FallBack()) continue;
    if (n < 0) return FileError(errno, "cannot read", path_);
    if (!direct_) ::posix_fadvise(fd_, offset + done, n, POSIX_FADV_DONTNEED);
    done += n;
    // Another direct read could only begin at a block; a file ends in the middle of one.
    if (done < bytes && (n == 0 || (direct_ && !IsAligned(done)))) {
      return absl::OutOfRangeError(absl::StrCat("file ends at byte ", offset + done, ": ", path_));
    }
  }
  return absl::OkStatus();
}

}  // namespace renga::base

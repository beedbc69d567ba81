#include "base/file.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/byte_size.h"
#include "base/scoped_fd.h"
#include "base/status_macros.h"

namespace renga::base {
namespace {

absl::StatusOr<int64_t> RegularFileSize(int fd, const std::string& path) {
  struct stat info = {};
  if (::fstat(fd, &info) != 0) return FileError(errno, "cannot stat", path);
  if (!S_ISREG(info.st_mode)) {
    return absl::InvalidArgumentError(absl::StrCat("not a regular file: ", path));
  }
  return info.st_size;
}

std::string UserDirectory(const char* variable, const char* below_home) {
  if (const char* base = std::getenv(variable); base != nullptr && *base == '/') {
    return absl::StrCat(base, "/renga");
  }
  const char* home = std::getenv("HOME");
  return absl::StrCat(home != nullptr && *home == '/' ? home : "/tmp", "/", below_home, "/renga");
}

}  // namespace

absl::Status FileError(int errno_value, const std::string& what, const std::string& path) {
  const std::string message = absl::StrCat(what, " ", path, ": ", std::strerror(errno_value));
  switch (errno_value) {
    case ENOENT:
    case ENOTDIR:
      return absl::NotFoundError(message);
    case EACCES:
    case EPERM:
    case EROFS:
      return absl::PermissionDeniedError(message);
    case ENOSPC:
    case EDQUOT:
    case EMFILE:
    case ENOMEM:
      return absl::ResourceExhaustedError(message);
    default:
      return absl::UnavailableError(message);
  }
}

absl::StatusOr<std::unique_ptr<MappedFile>> MappedFile::Open(const std::string& path) {
  ScopedFd fd(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
  if (fd.get() < 0) return FileError(errno, "cannot open", path);
  RENGA_ASSIGN_OR_RETURN(const int64_t size, RegularFileSize(fd.get(), path));
  if (size == 0) return std::unique_ptr<MappedFile>(new MappedFile(path, {}));
  void* address = ::mmap(nullptr, static_cast<size_t>(size), PROT_READ, MAP_SHARED, fd.get(), 0);
  if (address == MAP_FAILED) return FileError(errno, "cannot map", path);
  return std::unique_ptr<MappedFile>(
      new MappedFile(path, {static_cast<const std::byte*>(address), static_cast<size_t>(size)}));
}

MappedFile::~MappedFile() {
  if (!bytes_.empty()) ::munmap(const_cast<std::byte*>(bytes_.data()), bytes_.size());
}

absl::Status MappedFile::Populate() const {
#ifdef MADV_POPULATE_READ
  if (bytes_.empty()) return absl::OkStatus();
  auto* address = const_cast<std::byte*>(bytes_.data());
#ifdef MADV_HUGEPAGE
  // Where the file system keeps files in huge pages: fewer misses of the TLB later, and mapping 722
  // MB took 1 ms instead of 7 to 16. What is read then comes in pieces of that size.
  const bool in_huge_pages = ::madvise(address, bytes_.size(), MADV_HUGEPAGE) == 0;
#else
  const bool in_huge_pages = false;
#endif
  // Else in long reads; populating alone reads ahead a little at a time. Not where pages may be
  // huge: what this advice reads lies on small ones.
  if (!in_huge_pages) ::madvise(address, bytes_.size(), MADV_WILLNEED);
  if (::madvise(address, bytes_.size(), MADV_POPULATE_READ) == 0) return absl::OkStatus();
  // Linux before 5.14 knows no such advice: pages come when they are used.
  if (errno != EINVAL) return FileError(errno, "cannot read", path_);
#endif
  return absl::OkStatus();
}

absl::StatusOr<std::unique_ptr<RandomAccessFile>> RandomAccessFile::Open(const std::string& path,
                                                                         Mode mode) {
  const int flags = mode == Mode::kRead ? O_RDONLY : O_RDWR | O_CREAT;
  const int fd = ::open(path.c_str(), flags | O_CLOEXEC, 0644);
  if (fd < 0) return FileError(errno, "cannot open", path);
  return std::unique_ptr<RandomAccessFile>(new RandomAccessFile(path, fd));
}

RandomAccessFile::~RandomAccessFile() { ::close(fd_); }

absl::StatusOr<int64_t> RandomAccessFile::Size() const { return RegularFileSize(fd_, path_); }

absl::Status RandomAccessFile::ReadAt(int64_t offset, std::span<std::byte> out) const {
  while (!out.empty()) {
    const ssize_t n = ::pread(fd_, out.data(), out.size(), offset);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return FileError(errno, "cannot read", path_);
    if (n == 0)
      return absl::OutOfRangeError(absl::StrCat("file ends at byte ", offset, ": ", path_));
    out = out.subspan(static_cast<size_t>(n));
    offset += n;
  }
  return absl::OkStatus();
}

bool RandomAccessFile::ReadAtOnce(int64_t offset, std::span<std::byte> out) const {
#ifdef RWF_NOWAIT
  const iovec whole = {.iov_base = out.data(), .iov_len = out.size()};
  if (::preadv2(fd_, &whole, 1, offset, RWF_NOWAIT) == static_cast<ssize_t>(out.size())) {
    return true;
  }
#endif
  ::posix_fadvise(fd_, offset, static_cast<off_t>(out.size()), POSIX_FADV_WILLNEED);
  return false;
}

absl::Status RandomAccessFile::WriteAt(int64_t offset, std::span<const std::byte> bytes) {
  while (!bytes.empty()) {
    const ssize_t n = ::pwrite(fd_, bytes.data(), bytes.size(), offset);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return FileError(errno, "cannot write", path_);
    bytes = bytes.subspan(static_cast<size_t>(n));
    offset += n;
  }
  return absl::OkStatus();
}

absl::StatusOr<std::string> ReadFile(const std::string& path, int64_t max_bytes) {
  RENGA_ASSIGN_OR_RETURN(auto file, RandomAccessFile::Open(path, RandomAccessFile::Mode::kRead));
  RENGA_ASSIGN_OR_RETURN(const int64_t size, file->Size());
  if (size > max_bytes) {
    return absl::ResourceExhaustedError(absl::StrCat(path, " has ", FormatByteSize(size),
                                                     ", more than the allowed ",
                                                     FormatByteSize(max_bytes)));
  }
  std::string content(static_cast<size_t>(size), '\0');
  RENGA_RETURN_IF_ERROR(file->ReadAt(0, std::as_writable_bytes(std::span(content))));
  return content;
}

absl::Status WriteAll(int fd, const std::string& path, std::span<const std::byte> bytes) {
  while (!bytes.empty()) {
    const ssize_t n = ::write(fd, bytes.data(), bytes.size());
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return FileError(errno, "cannot write", path);
    bytes = bytes.subspan(static_cast<size_t>(n));
  }
  return absl::OkStatus();
}

absl::Status WriteFileAtomically(const std::string& path, const std::string& content, int mode) {
  std::string temporary = absl::StrCat(path, ".XXXXXX");
  ScopedFd fd(::mkostemp(temporary.data(), O_CLOEXEC));
  if (fd.get() < 0) return FileError(errno, "cannot create a temporary file for", path);
  if (const absl::Status written = WriteAll(fd.get(), path, std::as_bytes(std::span(content)));
      !written.ok()) {
    ::unlink(temporary.c_str());
    return written;
  }
  if (::fchmod(fd.get(), static_cast<mode_t>(mode)) != 0 || ::fsync(fd.get()) != 0 ||
      ::rename(temporary.c_str(), path.c_str()) != 0) {
    const int error = errno;
    ::unlink(temporary.c_str());
    return FileError(error, "cannot write", path);
  }
  return absl::OkStatus();
}

absl::Status CreateDirectories(const std::string& path) {
  std::error_code error;
  std::filesystem::create_directories(path, error);
  if (error) return FileError(error.value(), "cannot create the folder", path);
  return absl::OkStatus();
}

std::string CacheDirectory() { return UserDirectory("XDG_CACHE_HOME", ".cache"); }
std::string StateDirectory() { return UserDirectory("XDG_STATE_HOME", ".local/state"); }

}  // namespace renga::base

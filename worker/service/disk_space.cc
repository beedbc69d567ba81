#include "worker/service/disk_space.h"

#include <sys/statvfs.h>

#include <algorithm>
#include <cerrno>

#include "absl/strings/str_cat.h"
#include "base/byte_size.h"
#include "base/file.h"

namespace renga::worker {
namespace {

constexpr int64_t kMostReservedBytes = int64_t{2} << 30;

// What is always left to others: a disk is often a terabyte, so not just a part of it.
int64_t ReservedBytes(int64_t disk_bytes) { return std::min(disk_bytes / 10, kMostReservedBytes); }

}  // namespace

absl::Status CheckDiskSpace(const std::string& directory, int64_t bytes) {
  struct statvfs disk = {};
  if (::statvfs(directory.c_str(), &disk) != 0) {
    return base::FileError(errno, "cannot ask for the space left at", directory);
  }
  const auto block = static_cast<int64_t>(disk.f_frsize);
  const int64_t left = static_cast<int64_t>(disk.f_bavail) * block - bytes;
  const int64_t reserved = ReservedBytes(static_cast<int64_t>(disk.f_blocks) * block);
  if (left >= reserved) return absl::OkStatus();
  return absl::ResourceExhaustedError(absl::StrCat("less than ", base::FormatByteSize(reserved),
                                                   " of the disk would be left at ", directory));
}

}  // namespace renga::worker

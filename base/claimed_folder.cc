#include "base/claimed_folder.h"

#include <fcntl.h>
#include <sys/file.h>

#include <cerrno>

#include "absl/strings/str_cat.h"
#include "base/file.h"
#include "base/status_macros.h"

namespace renga::base {

absl::StatusOr<ClaimedFolder> ClaimedFolder::Claim(const std::string& path) {
  for (int number = 1; number <= kMost; ++number) {
    std::string folder = number == 1 ? path : absl::StrCat(path, "-", number);
    RENGA_RETURN_IF_ERROR(CreateDirectories(folder));
    const std::string file = folder + "/claim";
    ScopedFd lock(::open(file.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600));
    if (lock.get() < 0) return FileError(errno, "cannot open", file);
    if (::flock(lock.get(), LOCK_EX | LOCK_NB) == 0) {
      return ClaimedFolder(std::move(folder), std::move(lock));
    }
    if (errno != EWOULDBLOCK) return FileError(errno, "cannot lock", file);
  }
  return absl::ResourceExhaustedError(
      absl::StrCat(kMost, " processes of this user have ", path, " already: end some"));
}

}  // namespace renga::base

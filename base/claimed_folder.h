// A folder that one process at a time may have: of several processes that want the same one, each
// gets one of its own.
#ifndef RENGA_BASE_CLAIMED_FOLDER_H_
#define RENGA_BASE_CLAIMED_FOLDER_H_

#include <string>
#include <utility>

#include "absl/status/statusor.h"
#include "base/scoped_fd.h"

namespace renga::base {

// Held until it is destroyed or the process ends, however it ends.
class ClaimedFolder {
 public:
  static constexpr int kMost = 64;

  // `path`, else path-2, path-3 and so on: the first one that no living process has claimed. Makes
  // it. kResourceExhausted when all kMost are taken; FileError's codes.
  static absl::StatusOr<ClaimedFolder> Claim(const std::string& path);

  const std::string& path() const { return path_; }

 private:
  ClaimedFolder(std::string path, ScopedFd lock) : path_(std::move(path)), lock_(std::move(lock)) {}

  std::string path_;
  ScopedFd lock_;
};

}  // namespace renga::base

#endif  // RENGA_BASE_CLAIMED_FOLDER_H_

// Reads of a file past the page cache, for bytes that are wanted once and again but do not fit into
// memory: the cache would keep what was read longest ago least, which on a cyclic scan is what is
// needed next.
#ifndef RENGA_BASE_DIRECT_FILE_H_
#define RENGA_BASE_DIRECT_FILE_H_

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace renga::base {

// Offsets, lengths and addresses of direct reads are multiples of this.
inline constexpr int64_t kDirectAlignment = 4096;

inline constexpr int64_t RoundUpToDirect(int64_t bytes) {
  return (bytes + kDirectAlignment - 1) / kDirectAlignment * kDirectAlignment;
}

// An open file. Where the file system refuses O_DIRECT it is read as usual, and what was read is
// dropped from the page cache at once. Safe from several threads.
class DirectFile {
 public:
  // FileError's codes.
  static absl::StatusOr<std::unique_ptr<DirectFile>> Open(const std::string& path);
  ~DirectFile();
  DirectFile(const DirectFile&) = delete;
  DirectFile& operator=(const DirectFile&) = delete;

  absl::StatusOr<int64_t> Size() const;
  // Fills the first `bytes` of `room` from `offset`, some megabytes at a time; what lies behind
  // them is undefined. `offset`, room.data() and room.size() are multiples of kDirectAlignment, and
  // room is large enough: kInvalidArgument. kOutOfRange when the file ends before.
  absl::Status ReadAt(int64_t offset, std::span<std::byte> room, int64_t bytes) const;

  // Whether reads go past the page cache.
  bool direct() const { return direct_; }

 private:
  DirectFile(std::string path, int fd, bool direct)
      : path_(std::move(path)), fd_(fd), direct_(direct) {}
  // Some devices have larger blocks than kDirectAlignment.
  bool FallBack() const;

  const std::string path_;
  const int fd_;
  mutable std::atomic<bool> direct_;
};

}  // namespace renga::base

#endif  // RENGA_BASE_DIRECT_FILE_H_

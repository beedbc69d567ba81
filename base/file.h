// Files as absl::Status: memory-mapped reading, positioned reads and writes, whole files replaced
// atomically. Errors name the path and what the system said.
#ifndef RENGA_BASE_FILE_H_
#define RENGA_BASE_FILE_H_

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace renga::base {

// A Status for `errno_value` at `path`: kNotFound, kPermissionDenied, kResourceExhausted (disk
// full), else kUnavailable.
absl::Status FileError(int errno_value, const std::string& what, const std::string& path);

// A read-only mapping of a whole file. Immutable; safe from any thread. If another process
// truncates the file while it is mapped, reading past its new end raises SIGBUS: model files must
// not be rewritten in place.
class MappedFile {
 public:
  static absl::StatusOr<std::unique_ptr<MappedFile>> Open(const std::string& path);
  ~MappedFile();
  MappedFile(const MappedFile&) = delete;
  MappedFile& operator=(const MappedFile&) = delete;

  std::span<const std::byte> bytes() const { return bytes_; }
  // Reads all of it now, so that the first use neither waits nor meets a damaged disk.
  // FileError's codes when the disk can't be read or memory is short.
  absl::Status Populate() const;
  const std::string& path() const { return path_; }

 private:
  MappedFile(std::string path, std::span<const std::byte> bytes)
      : path_(std::move(path)), bytes_(bytes) {}
  const std::string path_;
  const std::span<const std::byte> bytes_;
};

// An open file with positioned reads and writes. Safe from several threads for disjoint ranges.
class RandomAccessFile {
 public:
  // kReadWrite creates the file when it is missing.
  enum class Mode { kRead, kReadWrite };
  static absl::StatusOr<std::unique_ptr<RandomAccessFile>> Open(const std::string& path, Mode mode);
  ~RandomAccessFile();
  RandomAccessFile(const RandomAccessFile&) = delete;
  RandomAccessFile& operator=(const RandomAccessFile&) = delete;

  absl::StatusOr<int64_t> Size() const;
  // Fills all of `out` from `offset`; kOutOfRange when the file ends before.
  absl::Status ReadAt(int64_t offset, std::span<std::byte> out) const;
  // Fills all of `out` if the system has it in memory. False: it had not, or cannot tell, and has
  // been asked to fetch it, so that many such reads wait for the disk at the same time; ReadAt
  // waits for it, and says what is wrong.
  bool ReadAtOnce(int64_t offset, std::span<std::byte> out) const;
  absl::Status WriteAt(int64_t offset, std::span<const std::byte> bytes);

 private:
  RandomAccessFile(std::string path, int fd) : path_(std::move(path)), fd_(fd) {}
  const std::string path_;
  const int fd_;
};

// The whole file; kResourceExhausted when it is larger than `max_bytes`.
absl::StatusOr<std::string> ReadFile(const std::string& path, int64_t max_bytes = int64_t{1} << 30);
// Writes where the descriptor stands; `path` is for the error's text.
absl::Status WriteAll(int fd, const std::string& path, std::span<const std::byte> bytes);
// Replaces `path` in one step (temporary file beside it, then rename). `mode` as in chmod.
absl::Status WriteFileAtomically(const std::string& path, const std::string& content,
                                 int mode = 0644);
// mkdir -p.
absl::Status CreateDirectories(const std::string& path);

// $XDG_CACHE_HOME/renga or ~/.cache/renga: shards and manifests that can be made again.
std::string CacheDirectory();
// $XDG_STATE_HOME/renga or ~/.local/state/renga: the coordinator's authority and token.
std::string StateDirectory();

}  // namespace renga::base

#endif  // RENGA_BASE_FILE_H_

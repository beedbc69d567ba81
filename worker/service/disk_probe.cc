#include "worker/service/disk_probe.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <limits>
#include <memory>
#include <span>
#include <system_error>

#include "absl/strings/str_cat.h"
#include "base/direct_file.h"
#include "base/file.h"
#include "base/scoped_fd.h"

namespace renga::worker {
namespace {

using Clock = std::chrono::steady_clock;

constexpr int64_t kBlockBytes = int64_t{4} << 20;
constexpr int64_t kScratchBytes = int64_t{8} << 20;
constexpr int kFill = 0x1c;
// Folders have thousands of files at most; a stranger's may have more.
constexpr int kMostFiles = 10'000;

double SecondsSince(Clock::time_point begin) {
  return std::max(std::chrono::duration<double>(Clock::now() - begin).count(), 1e-9);
}

// The path of the largest file; "" when none has a block.
std::string LargestFile(const std::string& folder) {
  std::string largest;
  uintmax_t size = static_cast<uintmax_t>(kBlockBytes);
  std::error_code error;
  int seen = 0;
  for (std::filesystem::recursive_directory_iterator entry(folder, error), end;
       !error && entry != end && ++seen < kMostFiles; entry.increment(error)) {
    std::error_code none;
    if (!entry->is_regular_file(none) || none || entry->file_size(none) < size || none) continue;
    size = entry->file_size(none);
    largest = entry->path().string();
  }
  return largest;
}

// Reads it from its begin to its end, again and again until the time is over. Two blocks in a row
// count that were fastest: the others say how busy the machine was, and one alone may come from a
// cache of the disk.
double ReadSpeed(const std::string& path, std::span<std::byte> block, double seconds) {
  const auto file = base::DirectFile::Open(path);
  if (!file.ok() || !(*file)->direct()) return 0;
  const absl::StatusOr<int64_t> size = (*file)->Size();
  if (!size.ok()) return 0;
  const int64_t blocks = *size / kBlockBytes;
  double fastest = std::numeric_limits<double>::infinity();
  double last = std::numeric_limits<double>::infinity();
  const Clock::time_point begin = Clock::now();
  for (int64_t i = 0; i < 2 || SecondsSince(begin) < seconds; ++i) {
    const Clock::time_point block_begin = Clock::now();
    if (!(*file)->ReadAt(i % blocks * kBlockBytes, block, kBlockBytes).ok()) return 0;
    const double taken = SecondsSince(block_begin);
    fastest = std::min(fastest, last + taken);
    last = taken;
  }
  return 2 * static_cast<double>(kBlockBytes) / fastest;
}

// A file without a name, which is gone when it is closed. It is written past the page cache: fsync
// would wait for what others write to the same disk, too.
double ScratchSpeed(const std::string& folder, std::span<std::byte> block, double seconds) {
  const base::ScopedFd file(
      ::open(folder.c_str(), O_TMPFILE | O_DIRECT | O_RDWR | O_CLOEXEC, 0600));
  if (file.get() < 0) return 0;
  std::memset(block.data(), kFill, block.size());
  const auto bytes = static_cast<ssize_t>(block.size());
  const Clock::time_point write_begin = Clock::now();
  int64_t size = 0;
  do {
    if (::pwrite(file.get(), block.data(), block.size(), size) != bytes) return 0;
    size += bytes;
  } while (size < kScratchBytes && SecondsSince(write_begin) < seconds);
  const Clock::time_point begin = Clock::now();
  for (int64_t done = 0; done < size; done += bytes) {
    if (::pread(file.get(), block.data(), block.size(), done) != bytes) return 0;
  }
  return static_cast<double>(size) / SecondsSince(begin);
}

}  // namespace

double MeasureDisk(const std::string& folder, absl::Duration duration) {
  if (folder.empty() || !base::CreateDirectories(folder).ok()) return 0;
  const std::unique_ptr<void, decltype(&std::free)> memory(
      std::aligned_alloc(base::kDirectAlignment, kBlockBytes), &std::free);
  if (memory == nullptr) return 0;
  const std::span<std::byte> block(static_cast<std::byte*>(memory.get()), kBlockBytes);
  const double seconds = absl::ToDoubleSeconds(duration);
  if (const std::string file = LargestFile(absl::StrCat(folder, "/packed")); !file.empty()) {
    if (const double speed = ReadSpeed(file, block, seconds); speed > 0) return speed;
  }
  return ScratchSpeed(folder, block, seconds);
}

}  // namespace renga::worker

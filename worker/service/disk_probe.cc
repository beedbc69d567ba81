#include "worker/service/disk_probe.h"

#include <fcntl.h>
#include <sys/file.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <functional>
#include <memory>
#include <span>
#include <system_error>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "base/direct_file.h"
#include "base/file.h"
#include "base/scoped_fd.h"
#include "base/status_macros.h"

namespace renga::worker {
namespace {

using Clock = std::chrono::steady_clock;

constexpr int64_t kBlockBytes = int64_t{4} << 20;
constexpr int64_t kScratchBytes = int64_t{8} << 20;
constexpr int kFill = 0x1c;
// Folders have thousands of files at most; a stranger's may have more.
constexpr int kMostFiles = 10'000;
constexpr double kLongestWaitSeconds = 2;

double SecondsSince(Clock::time_point begin) {
  return std::max(std::chrono::duration<double>(Clock::now() - begin).count(), 1e-9);
}

// The files that have a block, the largest first.
std::vector<std::string> LargeFiles(const std::string& folder) {
  std::vector<std::pair<uintmax_t, std::string>> files;
  std::error_code error;
  int seen = 0;
  for (std::filesystem::recursive_directory_iterator entry(folder, error), end;
       !error && entry != end && ++seen < kMostFiles; entry.increment(error)) {
    std::error_code none;
    if (!entry->is_regular_file(none) || none) continue;
    const uintmax_t size = entry->file_size(none);
    if (!none && size >= static_cast<uintmax_t>(kBlockBytes)) {
      files.emplace_back(size, entry->path().string());
    }
  }
  std::sort(files.begin(), files.end(), std::greater<>());
  std::vector<std::string> paths;
  for (auto& [size, path] : files) paths.push_back(std::move(path));
  return paths;
}

// Reads the files one after the other, again from the first when all were read, until the time is
// over, at least two blocks. The mean of the last two thirds counts: a disk whose rate is limited,
// as in a cloud, lets all pass for a tenth of a second, and then what it lets pass in each tenth at
// once.
double ReadSpeed(const std::vector<std::string>& paths, std::span<std::byte> block, double seconds,
                 const std::function<bool()>& give_way) {
  const Clock::time_point begin = Clock::now();
  Clock::time_point counted_from = begin;
  int64_t blocks = 0;
  const auto wants_more = [&] { return blocks < 2 || SecondsSince(begin) < seconds; };
  const auto read = [&](const base::DirectFile& file, int64_t size) -> absl::Status {
    for (int64_t i = 0; i < size / kBlockBytes && wants_more(); ++i) {
      if (give_way()) return absl::CancelledError("there is something better to do");
      RENGA_RETURN_IF_ERROR(file.ReadAt(i * kBlockBytes, block, kBlockBytes));
      ++blocks;
      if (SecondsSince(begin) > seconds / 3) continue;
      counted_from = Clock::now();
      blocks = 0;
    }
    return absl::OkStatus();
  };
  for (size_t next = 0; wants_more(); ++next) {
    const auto file = base::DirectFile::Open(paths[next % paths.size()]);
    if (!file.ok() || !(*file)->direct()) return 0;
    const absl::StatusOr<int64_t> size = (*file)->Size();
    // A file may have been cut meanwhile.
    if (!size.ok() || *size < kBlockBytes || !read(**file, *size).ok()) return 0;
  }
  return static_cast<double>(blocks * kBlockBytes) / SecondsSince(counted_from);
}

// A file without a name, which is gone when it is closed. It is written past the page cache: fsync
// would wait for what others write to the same disk, too.
double ScratchSpeed(const std::string& folder, std::span<std::byte> block, double seconds,
                    const std::function<bool()>& give_way) {
  const base::ScopedFd file(
      ::open(folder.c_str(), O_TMPFILE | O_DIRECT | O_RDWR | O_CLOEXEC, 0600));
  if (file.get() < 0) return 0;
  std::memset(block.data(), kFill, block.size());
  const auto bytes = static_cast<ssize_t>(block.size());
  const Clock::time_point write_begin = Clock::now();
  int64_t size = 0;
  do {
    if (give_way() || ::pwrite(file.get(), block.data(), block.size(), size) != bytes) return 0;
    size += bytes;
  } while (size < kScratchBytes && SecondsSince(write_begin) < seconds);
  const Clock::time_point begin = Clock::now();
  for (int64_t done = 0; done < size; done += bytes) {
    if (give_way() || ::pread(file.get(), block.data(), block.size(), done) != bytes) return 0;
  }
  return static_cast<double>(size) / SecondsSince(begin);
}

// Workers that start together on one machine take turns: each would measure a part of the disk.
// While this lives others wait for it, kLongestWaitSeconds at most.
std::optional<base::ScopedFd> TakeTurn(const std::string& folder,
                                       const std::function<bool()>& give_way) {
  const Clock::time_point begin = Clock::now();
  std::optional<base::ScopedFd> turn;
  while (!(turn = TryToTakeTurn(folder)).has_value() && SecondsSince(begin) < kLongestWaitSeconds &&
         !give_way()) {
    absl::SleepFor(absl::Milliseconds(5));
  }
  return turn;
}

}  // namespace

std::optional<base::ScopedFd> TryToTakeTurn(const std::string& folder) {
  base::ScopedFd turn(::open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (turn.get() >= 0 && ::flock(turn.get(), LOCK_EX | LOCK_NB) != 0 && errno == EWOULDBLOCK) {
    return std::nullopt;
  }
  return turn;
}

double MeasureDisk(const std::string& folder, absl::Duration duration,
                   const std::function<bool()>& asked) {
  if (folder.empty() || !base::CreateDirectories(folder).ok()) return 0;
  const std::unique_ptr<void, decltype(&std::free)> memory(
      std::aligned_alloc(base::kDirectAlignment, kBlockBytes), &std::free);
  if (memory == nullptr) return 0;
  const std::span<std::byte> block(static_cast<std::byte*>(memory.get()), kBlockBytes);
  const double seconds = absl::ToDoubleSeconds(duration);
  const std::function<bool()> give_way = asked ? asked : [] { return false; };
  const std::optional<base::ScopedFd> turn = TakeTurn(folder, give_way);
  if (const auto files = LargeFiles(absl::StrCat(folder, "/packed")); !files.empty()) {
    const double speed = ReadSpeed(files, block, seconds, give_way);
    if (speed > 0) return speed;
  }
  return ScratchSpeed(folder, block, seconds, give_way);
}

}  // namespace renga::worker

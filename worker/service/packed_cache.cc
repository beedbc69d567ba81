#include "worker/service/packed_cache.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <chrono>
#include <cstring>
#include <filesystem>
#include <memory>
#include <system_error>
#include <type_traits>
#include <utility>
#include <vector>

#include "absl/cleanup/cleanup.h"
#include "absl/strings/ascii.h"
#include "absl/strings/escaping.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "base/boot_id.h"
#include "base/content_hash.h"
#include "base/direct_file.h"
#include "base/file.h"
#include "base/log.h"
#include "base/status_macros.h"
#include "worker/service/disk_space.h"

namespace renga::worker {
namespace {

// A page, so that the matrix begins on one.
constexpr size_t kHeaderBytes = 4096;
// The system keeps what is written at once, from a multiple of its size on, on one page of memory
// where the file system allows: the size of a huge page.
constexpr size_t kWriteBytes = size_t{2} << 20;
constexpr char kCheckedName[] = "/checked";
// No file takes as long to write; what is older was left by a process that was killed.
constexpr std::chrono::hours kLeftoverAge(1);

// Little-endian, as every machine that renga runs on.
struct Header {
  std::array<char, 8> magic = {'R', 'E', 'N', 'G', 'A', 'P', 'K', '2'};
  int64_t type = 0;
  int64_t first_row = 0;
  int64_t end_row = 0;
  int64_t first_column = 0;
  int64_t end_column = 0;
  int64_t bytes = 0;
  base::ContentHash hash;
};
static_assert(sizeof(Header) == 72 && std::is_trivially_copyable_v<Header>);

Header HeaderOf(const PackedId& id, std::span<const std::byte> bytes) {
  Header header;
  header.type = static_cast<int64_t>(id.type);
  header.first_row = id.rows.begin;
  header.end_row = id.rows.end;
  header.first_column = id.columns.begin;
  header.end_column = id.columns.end;
  header.bytes = static_cast<int64_t>(bytes.size());
  header.hash = base::HashBytes(bytes);
  return header;
}

// Whether the file is of this matrix, its content aside.
bool IsOf(const Header& header, const PackedId& id, size_t bytes) {
  return header.magic == Header().magic && header.type == static_cast<int64_t>(id.type) &&
         header.first_row == id.rows.begin && header.end_row == id.rows.end &&
         header.first_column == id.columns.begin && header.end_column == id.columns.end &&
         header.bytes == static_cast<int64_t>(bytes);
}

// A layout's name: the processors that it is for, and a number that grows when it changes.
struct Layout {
  std::string processors;
  int number = 0;
};
// Nullopt for what is not named so.
std::optional<Layout> LayoutOf(const std::string& name) {
  const size_t dash = name.rfind('-');
  Layout layout;
  if (dash == std::string::npos || !absl::SimpleAtoi(name.substr(dash + 1), &layout.number)) {
    return std::nullopt;
  }
  layout.processors = name.substr(0, dash);
  return layout;
}

// What changes when a file is written to or replaced. "" when there is none.
std::string StampOf(const std::string& path) {
  struct stat info = {};
  if (::stat(path.c_str(), &info) != 0) return "";
  return absl::StrCat(info.st_size, "-", info.st_mtim.tv_sec, "-", info.st_mtim.tv_nsec, "-",
                      info.st_ino);
}

// WriteAll of two pieces, at once where the system can.
absl::Status WriteBoth(int fd, const std::string& path, std::span<const std::byte> first,
                       std::span<const std::byte> second) {
  const auto vector_of = [](std::span<const std::byte> bytes) {
    return iovec{const_cast<std::byte*>(bytes.data()), bytes.size()};
  };
  const std::array<iovec, 2> both = {vector_of(first), vector_of(second)};
  // Whatever was wrong with this call, if anything, the next ones say.
  const ssize_t n = ::writev(fd, both.data(), static_cast<int>(both.size()));
  const auto written = static_cast<size_t>(std::max<ssize_t>(n, 0));
  const size_t of_first = std::min(written, first.size());
  RENGA_RETURN_IF_ERROR(base::WriteAll(fd, path, first.subspan(of_first)));
  return base::WriteAll(fd, path, second.subspan(written - of_first));
}

}  // namespace

PackedCache::PackedCache(const std::string& directory, absl::string_view model_id,
                         absl::string_view layout)
    : directory_(directory.empty() || layout.empty()
                     ? ""
                     : absl::StrCat(directory, "/packed/", absl::BytesToHexString(model_id), "/",
                                    layout)) {
  if (enabled()) LoadChecked();
}

PackedCache::~PackedCache() { RememberChecked(); }

std::string PackedCache::Name(const PackedId& id) const {
  return absl::StrCat(id.tensor, "-", id.rows.begin, "-", id.rows.end, "-", id.columns.begin, "-",
                      id.columns.end);
}

std::string PackedCache::Path(const PackedId& id) const {
  return absl::StrCat(directory_, "/", Name(id));
}

void PackedCache::LoadChecked() {
  const absl::StatusOr<std::string> text =
      base::ReadFile(directory_ + kCheckedName, int64_t{64} << 20);
  if (!text.ok()) return;
  const std::vector<absl::string_view> lines = absl::StrSplit(*text, '\n');
  const std::string boot_id = base::BootId();
  if (boot_id.empty() || lines[0] != boot_id) return;
  absl::MutexLock lock(&mutex_);
  for (const absl::string_view line : lines) {
    const std::pair<absl::string_view, absl::string_view> entry = absl::StrSplit(line, ' ');
    checked_.emplace(entry.first, entry.second);
  }
}

void PackedCache::RememberChecked() {
  if (!enabled()) return;
  // What another process has checked meanwhile counts too.
  LoadChecked();
  absl::MutexLock lock(&mutex_);
  if (!checked_changed_) return;
  checked_changed_ = false;
  std::string text = base::BootId() + "\n";
  for (const auto& [name, stamp] : checked_) {
    if (!stamp.empty()) absl::StrAppend(&text, name, " ", stamp, "\n");
  }
  const absl::Status status = base::WriteFileAtomically(directory_ + kCheckedName, text);
  if (!status.ok()) {
    RENGA_LOG(WARNING) << status.message();
  }
}

bool PackedCache::WasChecked(const std::string& name, const std::string& stamp) const {
  absl::MutexLock lock(&mutex_);
  const auto found = checked_.find(name);
  return found != checked_.end() && found->second == stamp;
}

void PackedCache::SetChecked(const std::string& name, const std::string& stamp) {
  absl::MutexLock lock(&mutex_);
  checked_[name] = stamp;
  checked_changed_ = true;
}

std::optional<kernels::PackedBytes> PackedCache::Find(const PackedId& id, int64_t bytes) {
  if (!enabled()) return std::nullopt;
  const std::string name = Name(id);
  const std::string path = absl::StrCat(directory_, "/", name);
  const std::string stamp = StampOf(path);
  if (stamp.empty()) return std::nullopt;
  absl::StatusOr<std::unique_ptr<base::MappedFile>> file = base::MappedFile::Open(path);
  if (!file.ok()) return std::nullopt;
  if (const absl::Status status = (*file)->Populate(); !status.ok()) {
    RENGA_LOG(WARNING) << status.message() << "; packing the matrix again";
    return std::nullopt;
  }
  const std::span<const std::byte> all = (*file)->bytes();
  if (static_cast<int64_t>(all.size()) - static_cast<int64_t>(kHeaderBytes) == bytes) {
    Header header;
    std::memcpy(&header, all.data(), sizeof(header));
    const std::span<const std::byte> matrix = all.subspan(kHeaderBytes);
    const bool checked = WasChecked(name, stamp);
    if (IsOf(header, id, matrix.size()) && (checked || base::HashBytes(matrix) == header.hash)) {
      if (!checked) SetChecked(name, stamp);
      return kernels::PackedBytes{matrix, *std::move(file)};
    }
  }
  RENGA_LOG(WARNING) << "the packed matrix " << path << " is damaged; packing it again";
  ::unlink(path.c_str());
  return std::nullopt;
}

bool PackedCache::Has(const PackedId& id, int64_t bytes) const {
  if (!enabled()) return false;
  const std::string path = Path(id);
  const std::string stamp = StampOf(path);
  if (stamp.empty()) return false;
  const auto file = base::RandomAccessFile::Open(path, base::RandomAccessFile::Mode::kRead);
  if (!file.ok()) return false;
  const absl::StatusOr<int64_t> size = (*file)->Size();
  if (!size.ok() || *size != bytes + static_cast<int64_t>(kHeaderBytes)) return false;
  if (WasChecked(Name(id), stamp)) return true;
  Header header;
  return (*file)->ReadAt(0, std::as_writable_bytes(std::span(&header, 1))).ok() &&
         IsOf(header, id, static_cast<size_t>(bytes));
}

absl::Status PackedCache::ReadInto(const PackedId& id, int64_t bytes, std::span<std::byte> room) {
  const std::string name = Name(id);
  const std::string path = Path(id);
  const std::string stamp = StampOf(path);
  RENGA_ASSIGN_OR_RETURN(const auto file, base::DirectFile::Open(path));
  RENGA_RETURN_IF_ERROR(file->ReadAt(kHeaderBytes, room, bytes));
  if (WasChecked(name, stamp)) return absl::OkStatus();
  alignas(base::kDirectAlignment) std::array<std::byte, kHeaderBytes> page;
  RENGA_RETURN_IF_ERROR(file->ReadAt(0, page, kHeaderBytes));
  Header header;
  std::memcpy(&header, page.data(), sizeof(header));
  const std::span<const std::byte> matrix = room.first(static_cast<size_t>(bytes));
  if (IsOf(header, id, matrix.size()) && base::HashBytes(matrix) == header.hash) {
    SetChecked(name, stamp);
    return absl::OkStatus();
  }
  ::unlink(path.c_str());
  return absl::DataLossError(absl::StrCat("the packed matrix ", path, " is damaged"));
}

void PackedCache::Prefetch(const PackedId& id) const {
  const auto file = base::MappedFile::Open(Path(id));
  // Whoever maps it next says what is wrong with it.
  if (file.ok()) (*file)->Populate().IgnoreError();
}

void PackedCache::DropPages(const PackedId& id) const {
  const int fd = ::open(Path(id).c_str(), O_RDONLY | O_CLOEXEC);
  if (fd < 0) return;
  ::posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED);
  ::close(fd);
}

void PackedCache::RemoveLeftovers() const {
  RemoveEarlierLayouts();
  std::error_code error;
  const auto long_ago = std::filesystem::file_time_type::clock::now() - kLeftoverAge;
  for (std::filesystem::directory_iterator entry(directory_, error), end; !error && entry != end;
       entry.increment(error)) {
    // Only unfinished files have a dot in their names.
    std::error_code none;
    if (entry->path().has_extension() && entry->last_write_time(none) < long_ago && !none) {
      std::filesystem::remove(entry->path(), none);
    }
  }
}

void PackedCache::RemoveEarlierLayouts() const {
  const std::filesystem::path own(directory_);
  const std::optional<Layout> layout = LayoutOf(own.filename().string());
  if (!layout.has_value()) return;
  std::error_code error;
  for (std::filesystem::directory_iterator entry(own.parent_path(), error), end;
       !error && entry != end; entry.increment(error)) {
    const std::optional<Layout> other = LayoutOf(entry->path().filename().string());
    if (!other.has_value() || other->processors != layout->processors ||
        other->number >= layout->number) {
      continue;
    }
    RENGA_LOG(INFO) << "removing " << entry->path().string() << ", packed by an earlier version";
    std::error_code none;
    std::filesystem::remove_all(entry->path(), none);
  }
}

absl::Status PackedCache::CheckRoom(int64_t bytes) const {
  RENGA_RETURN_IF_ERROR(base::CreateDirectories(directory_));
  return CheckDiskSpace(directory_, bytes);
}

absl::Status PackedCache::Keep(const PackedId& id, std::span<const std::byte> bytes,
                               const std::function<bool()>& cancelled) {
  RENGA_RETURN_IF_ERROR(CheckRoom(static_cast<int64_t>(bytes.size())));
  const std::string name = Name(id);
  const std::string path = absl::StrCat(directory_, "/", name);
  std::string temporary = absl::StrCat(path, ".XXXXXX");
  const int fd = ::mkostemp(temporary.data(), O_CLOEXEC);
  if (fd < 0) return base::FileError(errno, "cannot create a temporary file for", path);
  const auto clean_up = absl::MakeCleanup([&] {
    ::close(fd);
    ::unlink(temporary.c_str());  // gone already when it was renamed
  });
  std::array<std::byte, kHeaderBytes> page = {};
  const Header header = HeaderOf(id, bytes);
  std::memcpy(page.data(), &header, sizeof(header));
  size_t done = 0;
  for (size_t room = kWriteBytes - kHeaderBytes; done < bytes.size(); room = kWriteBytes) {
    if (cancelled()) return absl::CancelledError("not all of it was kept");
    const auto piece = bytes.subspan(done, std::min(bytes.size() - done, room));
    RENGA_RETURN_IF_ERROR(done == 0 ? WriteBoth(fd, path, page, piece)
                                    : base::WriteAll(fd, path, piece));
    done += piece.size();
  }
  // Bounds what waits to be written; after a crash the hash tells.
  if (::fdatasync(fd) != 0 || ::rename(temporary.c_str(), path.c_str()) != 0) {
    return base::FileError(errno, "cannot write", path);
  }
  SetChecked(name, StampOf(path));
  return absl::OkStatus();
}

}  // namespace renga::worker

#include "worker/engine/screen_file.h"

#include <algorithm>
#include <bit>
#include <cstdio>
#include <cstring>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "base/content_hash.h"
#include "base/status_macros.h"

namespace renga::engine {
namespace {

static_assert(std::endian::native == std::endian::little, "the file is little-endian");

constexpr char kMagic[8] = {'r', 'e', 'n', 'g', 'a', 's', 'c', 'r'};
constexpr uint32_t kVersion = 2;
constexpr int64_t kSegmentBlocks = 64;
constexpr int64_t kHashBytes = sizeof(uint64_t);
constexpr int64_t kMostRows = int64_t{1} << 24;
constexpr int64_t kMostWidth = int64_t{1} << 16;
constexpr int64_t kMostPlaces = int64_t{1} << 17;

struct Header {
  char magic[8];
  uint32_t version;
  uint32_t type;
  int64_t width;
  int64_t rows;
  int64_t places;
  int64_t row_bytes;
  char model_id[64];
  uint64_t basis_hash;   // of the basis and the segments' hashes
  uint64_t header_hash;  // of all before it
};

uint64_t Hash(std::span<const std::byte> bytes) { return base::HashBytes(bytes).low; }

uint64_t HeaderHash(const Header& header) {
  return Hash(std::as_bytes(std::span(&header, 1)).first(offsetof(Header, header_hash)));
}

template <typename T>
void Put(const std::vector<T>& numbers, std::vector<std::byte>& out) {
  const auto bytes = std::as_bytes(std::span(numbers));
  out.insert(out.end(), bytes.begin(), bytes.end());
}

template <typename T>
void Take(std::span<const std::byte>& in, int64_t count, std::vector<T>& numbers) {
  numbers.resize(static_cast<size_t>(count));
  std::memcpy(numbers.data(), in.data(), numbers.size() * sizeof(T));
  in = in.subspan(numbers.size() * sizeof(T));
}

std::vector<float> Singles(const ScreenBasis& basis) {
  std::vector<float> singles(basis.norm_units.begin(), basis.norm_units.end());
  singles.push_back(basis.norm_ratio);
  singles.push_back(basis.rotation_error);
  return singles;
}
constexpr int64_t kSingles = 2 * kErrorNorms + 2;

int64_t BasisBytes(const Header& header) {
  const int64_t floats = header.width * header.width + 3 * header.width + kSingles;
  return 4 * floats + 4 * header.places + header.width;
}

std::vector<std::byte> EncodeBasis(const ScreenBasis& basis) {
  std::vector<std::byte> bytes;
  for (const auto* numbers : {&basis.rotation, &basis.mean, &basis.step, &basis.spread}) {
    Put(*numbers, bytes);
  }
  Put(Singles(basis), bytes);
  Put(basis.places, bytes);
  Put(basis.bits, bytes);
  return bytes;
}

ScreenBasis DecodeBasis(const Header& header, std::span<const std::byte> bytes) {
  ScreenBasis basis;
  basis.width = header.width;
  Take(bytes, header.width * header.width, basis.rotation);
  for (auto* numbers : {&basis.mean, &basis.step, &basis.spread}) {
    Take(bytes, header.width, *numbers);
  }
  std::vector<float> singles;
  Take(bytes, kSingles, singles);
  std::copy_n(singles.begin(), basis.norm_units.size(), basis.norm_units.begin());
  basis.norm_ratio = singles[kSingles - 2];
  basis.rotation_error = singles[kSingles - 1];
  Take(bytes, header.places, basis.places);
  Take(bytes, header.width, basis.bits);
  return basis;
}

absl::Status Damaged(const std::string& path, absl::string_view what) {
  return absl::DataLossError(absl::StrCat("the screen ", path, " is damaged (", what,
                                          "); build it again with `renga regions`"));
}

// Appends to a file, with a hash where one is asked for.
class Writer {
 public:
  explicit Writer(base::RandomAccessFile* file) : file_(file) {}

  absl::Status Append(std::span<const std::byte> bytes) {
    RENGA_RETURN_IF_ERROR(file_->WriteAt(at_, bytes));
    at_ += static_cast<int64_t>(bytes.size());
    return absl::OkStatus();
  }
  // `bytes` as records of `each`, each followed by its hash.
  absl::Status AppendRecords(std::span<const std::byte> bytes, int64_t each) {
    buffer_.clear();
    for (size_t at = 0; at < bytes.size(); at += static_cast<size_t>(each)) {
      const auto record = bytes.subspan(at, static_cast<size_t>(each));
      const uint64_t hash = Hash(record);
      buffer_.insert(buffer_.end(), record.begin(), record.end());
      const auto hash_bytes = std::as_bytes(std::span(&hash, 1));
      buffer_.insert(buffer_.end(), hash_bytes.begin(), hash_bytes.end());
    }
    return Append(buffer_);
  }

 private:
  base::RandomAccessFile* const file_;
  int64_t at_ = 0;
  std::vector<std::byte> buffer_;
};

std::vector<uint64_t> SegmentHashes(const HeadScreen& screen) {
  const auto each = static_cast<size_t>(kSegmentBlocks * screen.basis.block_bytes());
  std::vector<uint64_t> hashes;
  for (size_t at = 0; at < screen.blocks.size(); at += each) {
    const size_t bytes = std::min(each, screen.blocks.size() - at);
    hashes.push_back(Hash(std::span(screen.blocks).subspan(at, bytes)));
  }
  return hashes;
}

absl::Status WriteAll(base::RandomAccessFile* file, const HeadScreen& screen,
                      const ScreenedMatrix& matrix, int64_t row_bytes) {
  std::vector<std::byte> basis = EncodeBasis(screen.basis);
  Put(SegmentHashes(screen), basis);
  Header header{};
  std::copy(std::begin(kMagic), std::end(kMagic), header.magic);
  header.version = kVersion;
  header.type = static_cast<uint32_t>(matrix.type);
  header.width = screen.basis.width;
  header.rows = screen.rows;
  header.places = static_cast<int64_t>(screen.basis.places.size());
  header.row_bytes = row_bytes;
  std::copy(matrix.model_id.begin(), matrix.model_id.end(), header.model_id);
  header.basis_hash = Hash(basis);
  header.header_hash = HeaderHash(header);
  Writer writer(file);
  RENGA_RETURN_IF_ERROR(writer.Append(std::as_bytes(std::span(&header, 1))));
  RENGA_RETURN_IF_ERROR(writer.Append(basis));
  RENGA_RETURN_IF_ERROR(writer.Append(screen.blocks));
  RENGA_RETURN_IF_ERROR(writer.AppendRecords(screen.fine, screen.basis.fine_bytes()));
  constexpr int64_t kRowsAtOnce = 1024;
  std::vector<std::byte> rows;
  for (int64_t first = 0; first < screen.rows; first += kRowsAtOnce) {
    rows.resize(static_cast<size_t>(std::min(kRowsAtOnce, screen.rows - first) * row_bytes));
    RENGA_RETURN_IF_ERROR(matrix.read(first, rows));
    RENGA_RETURN_IF_ERROR(writer.AppendRecords(rows, row_bytes));
  }
  return absl::OkStatus();
}

// How many of the first of these ascending rows are read together: reading on costs less than
// another read, and disks give whole pages.
size_t RunLength(std::span<const int32_t> rows, int64_t stride) {
  constexpr int64_t kGapBytes = 4096;
  constexpr int64_t kMostBytes = 128 << 10;
  size_t length = 1;
  while (length < rows.size() && (rows[length] - rows[length - 1] - 1) * stride <= kGapBytes &&
         (rows[length] - rows.front() + 1) * stride <= kMostBytes) {
    ++length;
  }
  return length;
}

// Those of `rows` out of the records from rows.front() to rows.back(), each with its hash behind
// it; false when one is damaged.
bool CopyRecords(std::span<const std::byte> records, std::span<const int32_t> rows, int64_t each,
                 std::byte* out) {
  for (const int32_t row : rows) {
    const auto record = records.subspan(
        static_cast<size_t>((row - rows.front()) * (each + kHashBytes)), static_cast<size_t>(each));
    uint64_t hash;
    std::memcpy(&hash, record.data() + each, sizeof(hash));
    if (Hash(record) != hash) return false;
    out = std::copy(record.begin(), record.end(), out);
  }
  return true;
}

}  // namespace

std::string ScreenPath(absl::string_view cache_directory, absl::string_view model_id) {
  return absl::StrCat(cache_directory, "/screens/", model_id, ".screen");
}

absl::Status WriteScreen(const std::string& path, const HeadScreen& screen,
                         const ScreenedMatrix& matrix) {
  if (matrix.model_id.size() > sizeof(Header::model_id)) {
    return absl::InvalidArgumentError("a model's id has at most 64 bytes");
  }
  RENGA_ASSIGN_OR_RETURN(const int64_t row_bytes, base::RowBytes(matrix.type, screen.basis.width));
  const std::string unfinished = absl::StrCat(path, ".part");
  std::remove(unfinished.c_str());
  RENGA_ASSIGN_OR_RETURN(
      const auto file,
      base::RandomAccessFile::Open(unfinished, base::RandomAccessFile::Mode::kReadWrite));
  const absl::Status status = WriteAll(file.get(), screen, matrix, row_bytes);
  if (status.ok() && std::rename(unfinished.c_str(), path.c_str()) == 0) return status;
  const int error = errno;
  std::remove(unfinished.c_str());
  return status.ok() ? base::FileError(error, "cannot write", path) : status;
}

absl::StatusOr<std::unique_ptr<ScreenFile>> ScreenFile::Open(const std::string& path) {
  std::unique_ptr<ScreenFile> screen(new ScreenFile);
  screen->path_ = path;
  RENGA_ASSIGN_OR_RETURN(screen->file_,
                         base::RandomAccessFile::Open(path, base::RandomAccessFile::Mode::kRead));
  RENGA_RETURN_IF_ERROR(screen->ReadHeader());
  return screen;
}

absl::Status ScreenFile::ReadHeader() {
  Header header;
  if (!file_->ReadAt(0, std::as_writable_bytes(std::span(&header, 1))).ok() ||
      !std::equal(std::begin(kMagic), std::end(kMagic), header.magic) ||
      header.header_hash != HeaderHash(header)) {
    return Damaged(path_, "its header");
  }
  if (header.version != kVersion) {
    return absl::DataLossError(absl::StrCat("the screen ", path_, " was made by another version (",
                                            header.version, ", not ", kVersion,
                                            "); build it again with `renga regions`"));
  }
  const auto within = [](int64_t value, int64_t most) { return value >= 1 && value <= most; };
  type_ = static_cast<base::DataType>(header.type);
  const auto row_bytes = base::RowBytes(type_, header.width);
  if (!within(header.width, kMostWidth) || !within(header.rows, kMostRows) ||
      !within(header.places, kMostPlaces) || header.places % 8 != 0 || !row_bytes.ok() ||
      *row_bytes != header.row_bytes) {
    return Damaged(path_, "its sizes");
  }
  rows_ = header.rows;
  row_bytes_ = header.row_bytes;
  const char* const id_end = std::find(std::begin(header.model_id), std::end(header.model_id), 0);
  model_id_.assign(static_cast<const char*>(header.model_id), id_end);

  const int64_t segments = (block_count() + kSegmentBlocks - 1) / kSegmentBlocks;
  RENGA_ASSIGN_OR_RETURN(const int64_t size, file_->Size());
  const int64_t basis_bytes = BasisBytes(header);
  if (basis_bytes + segments * kHashBytes > size) return Damaged(path_, "it ends too early");
  std::vector<std::byte> bytes(static_cast<size_t>(basis_bytes + segments * kHashBytes));
  RENGA_RETURN_IF_ERROR(file_->ReadAt(sizeof(Header), bytes));
  if (Hash(bytes) != header.basis_hash) return Damaged(path_, "its basis");
  basis_ = DecodeBasis(header, bytes);
  RENGA_RETURN_IF_ERROR(CheckBasis(basis_));
  std::span<const std::byte> hashes = std::span(bytes).subspan(static_cast<size_t>(basis_bytes));
  Take(hashes, segments, segment_hashes_);
  blocks_at_ = static_cast<int64_t>(sizeof(Header) + bytes.size());
  fine_at_ = blocks_at_ + block_count() * basis_.block_bytes();
  rows_at_ = fine_at_ + rows_ * (basis_.fine_bytes() + kHashBytes);
  if (size < rows_at_ + rows_ * (row_bytes_ + kHashBytes)) {
    return Damaged(path_, "it ends too early");
  }
  return absl::OkStatus();
}

absl::Status ScreenFile::ReadBlocks(int64_t first, std::span<std::byte> out) const {
  const int64_t each = basis_.block_bytes();
  const int64_t count = static_cast<int64_t>(out.size()) / each;
  std::vector<std::byte> segment;
  for (int64_t s = first / kSegmentBlocks; s * kSegmentBlocks < first + count; ++s) {
    const int64_t begin = s * kSegmentBlocks;
    const int64_t end = std::min(begin + kSegmentBlocks, block_count());
    segment.resize(static_cast<size_t>((end - begin) * each));
    RENGA_RETURN_IF_ERROR(file_->ReadAt(blocks_at_ + begin * each, segment));
    if (Hash(segment) != segment_hashes_[s]) return Damaged(path_, "its first level");
    const int64_t from = std::max(begin, first);
    const int64_t to = std::min(end, first + count);
    std::copy(segment.begin() + (from - begin) * each, segment.begin() + (to - begin) * each,
              out.begin() + (from - first) * each);
  }
  return absl::OkStatus();
}

absl::StatusOr<int64_t> ScreenFile::ReadFine(std::span<const int32_t> rows,
                                             std::span<std::byte> out) const {
  return ReadRecords(fine_at_, basis_.fine_bytes(), rows, out);
}

absl::StatusOr<int64_t> ScreenFile::ReadRows(std::span<const int32_t> rows,
                                             std::span<std::byte> out) const {
  return ReadRecords(rows_at_, row_bytes_, rows, out);
}

absl::StatusOr<int64_t> ScreenFile::ReadRecords(int64_t at, int64_t each,
                                                std::span<const int32_t> rows,
                                                std::span<std::byte> out) const {
  const int64_t stride = each + kHashBytes;
  thread_local std::vector<std::byte> buffer;
  std::span<std::byte> here;
  const auto make_room = [&](std::span<const int32_t> run) {
    const auto bytes = static_cast<size_t>((run.back() - run.front() + 1) * stride);
    if (buffer.size() < bytes) buffer.resize(bytes);
    here = std::span(buffer).first(bytes);
    return at + run.front() * stride;
  };
  int64_t total = 0;
  const auto take = [&](std::span<const int32_t> run) {
    total += static_cast<int64_t>(here.size());
    std::byte* const place = out.data() + (run.data() - rows.data()) * each;
    return CopyRecords(here, run, each, place) ? absl::OkStatus() : Damaged(path_, "a row");
  };
  // Those that are not in the system's memory: the disk fetches them side by side.
  std::vector<std::span<const int32_t>> late;
  for (auto rest = rows; !rest.empty();) {
    const std::span<const int32_t> run = rest.first(RunLength(rest, stride));
    rest = rest.subspan(run.size());
    if (const int64_t offset = make_room(run); !file_->ReadAtOnce(offset, here)) {
      late.push_back(run);
    } else {
      RENGA_RETURN_IF_ERROR(take(run));
    }
  }
  for (const std::span<const int32_t> run : late) {
    const int64_t offset = make_room(run);
    RENGA_RETURN_IF_ERROR(file_->ReadAt(offset, here));
    RENGA_RETURN_IF_ERROR(take(run));
  }
  return total;
}

}  // namespace renga::engine

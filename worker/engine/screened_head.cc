#include "worker/engine/screened_head.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <numeric>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/data_type.h"
#include "base/status_macros.h"

namespace renga::engine {
namespace {

// Rows are computed by matrices of these sizes.
constexpr int64_t kGatherSizes[] = {16, 64, 256};
constexpr int64_t kFewRows = kGatherSizes[0];
constexpr int64_t kGatherRows = kGatherSizes[2];
// Rows that look best are computed before anything is ruled out.
constexpr int64_t kMorePromising = 4;
// A share of rows that survive the second level of which it is cheaper to read everything in order.
constexpr int64_t kMostSurvivorsDivisor = 8;
// All rows are read in pieces of this many.
constexpr int64_t kFullRows = 4096;
constexpr float kNothing = ResidentScreen::kNothing;

constexpr uint16_t kHalfOne = 0x3c00;

template <typename T>
void Store(T value, std::byte* at) {
  std::memcpy(at, &value, sizeof(value));
}

// 256 numbers: 6-bit codes that stand for code - 32, in quarters of the block (FORMATS.md).
void StoreIdentityQ6K(int64_t one, std::byte* block) {
  constexpr int64_t kHighAt = 128;
  constexpr int64_t kScalesAt = 192;
  constexpr int64_t kUnitAt = 208;
  std::fill(block, block + kHighAt, std::byte{0});
  std::fill(block + kHighAt, block + kScalesAt, std::byte{0xaa});  // 2 in every pair of bits: 32
  std::fill(block + kScalesAt, block + kUnitAt, std::byte{1});
  Store(kHalfOne, block + kUnitAt);
  if (one < 0) return;
  const int64_t half = one / 128;
  const int64_t quarter = one % 128 / 32;
  block[half * 64 + quarter % 2 * 32 + one % 32] = quarter < 2 ? std::byte{1} : std::byte{16};
}

// Row `one` of the identity, of `width` numbers.
void StoreIdentityRow(base::DataType type, int64_t width, int64_t one, std::byte* row) {
  const base::DataTypeInfo& info = base::GetDataTypeInfo(type);
  const int64_t blocks = width / info.block_elements;
  std::fill(row, row + blocks * info.block_bytes, std::byte{0});
  for (int64_t b = 0; b < blocks; ++b) {
    std::byte* const block = row + b * info.block_bytes;
    const bool here = one / info.block_elements == b;
    const int64_t inside = one % info.block_elements;
    if (type == base::DataType::kQ6_K) StoreIdentityQ6K(here ? inside : -1, block);
    if (type == base::DataType::kQ8_0) {
      Store(kHalfOne, block);
      if (here) block[2 + inside] = std::byte{1};
    }
    if (!here) continue;
    if (type == base::DataType::kF32) Store(1.0F, block);
    if (type == base::DataType::kF16) Store(kHalfOne, block);
    if (type == base::DataType::kBF16) Store(uint16_t{0x3f80}, block);
  }
}

}  // namespace

bool CanScreen(base::DataType type) {
  return type == base::DataType::kF32 || type == base::DataType::kF16 ||
         type == base::DataType::kBF16 || type == base::DataType::kQ8_0 ||
         type == base::DataType::kQ6_K;
}

// The rows computed so far, and which others can still matter.
struct ScreenedHead::Search {
  struct Exact {
    double value;  // logit + noise
    float logit;
    int32_t id;
  };
  std::vector<Exact> exact;
  std::vector<int32_t> survivors;
  double threshold = kNothing;  // rows below it do not matter
  int64_t fine_rows = 0;
  int64_t exact_rows = 0;
  int64_t bytes_read = 0;

  static bool Better(const Exact& a, const Exact& b) {
    return a.value != b.value ? a.value > b.value : a.id < b.id;
  }

  void Raise(const Wanted& wanted) {
    if (exact.empty()) return;
    const double best = std::min_element(exact.begin(), exact.end(), Better)->value;
    double least = best;
    if (wanted.top_k > 0) {
      const auto last = exact.begin() + wanted.top_k - 1;
      const bool enough = static_cast<int64_t>(exact.size()) >= wanted.top_k;
      if (enough) std::nth_element(exact.begin(), last, exact.end(), Better);
      least = enough ? last->value : double{kNothing};
    }
    if (wanted.within.has_value()) {
      least = std::min(least, best - static_cast<double>(*wanted.within));
    }
    threshold = std::max(threshold, least);
  }
};

ScreenedHead::ScreenedHead(std::shared_ptr<const ScreenFile> file, const model::Range& rows,
                           kernels::Backend* backend, int threads)
    : file_(std::move(file)),
      rows_(rows),
      backend_(backend),
      own_pool_(backend->threads() == nullptr ? std::make_unique<base::ThreadPool>(threads)
                                              : nullptr),
      pool_(own_pool_ == nullptr ? *backend->threads() : *own_pool_) {}

absl::StatusOr<std::unique_ptr<ScreenedHead>> ScreenedHead::Create(
    std::shared_ptr<const ScreenFile> file, const model::Range& rows, kernels::Backend* backend,
    int threads) {
  if (!CanScreen(file->type())) {
    return absl::UnimplementedError(absl::StrCat("output matrices of ",
                                                 base::GetDataTypeInfo(file->type()).name,
                                                 " are not screened: the full ones are small"));
  }
  if (rows.empty() || rows.begin < 0 || rows.end > file->rows()) {
    return absl::InvalidArgumentError(absl::StrCat("rows ", rows.begin, " to ", rows.end,
                                                   " of a screen of ", file->rows(), " rows"));
  }
  std::unique_ptr<ScreenedHead> head(new ScreenedHead(std::move(file), rows, backend, threads));
  RENGA_RETURN_IF_ERROR(head->Prepare());
  return head;
}

absl::Status ScreenedHead::Prepare() {
  RENGA_ASSIGN_OR_RETURN(screen_, ResidentScreen::Read(*file_, rows_));
  const int64_t width = file_->basis().width;
  for (const int64_t rows : kGatherSizes) {
    RENGA_ASSIGN_OR_RETURN(gather_.emplace_back(),
                           backend_->CreateMatrix(file_->type(), rows, width));
  }
  RENGA_ASSIGN_OR_RETURN(out_, backend_->Allocate(std::max({width, kGatherRows}) *
                                                  static_cast<int64_t>(sizeof(float))));
  return LoadIdentity();
}

absl::Status ScreenedHead::LoadIdentity() {
  const int64_t width = file_->basis().width;
  RENGA_ASSIGN_OR_RETURN(identity_, backend_->CreateMatrix(file_->type(), width, width));
  std::vector<std::byte> row(static_cast<size_t>(file_->row_bytes()));
  for (int64_t i = 0; i < width; ++i) {
    StoreIdentityRow(file_->type(), width, i, row.data());
    RENGA_RETURN_IF_ERROR(backend_->LoadRows(*identity_, i, row));
    // The row is used again.
    RENGA_RETURN_IF_ERROR(backend_->Synchronize());
  }
  return absl::OkStatus();
}

int64_t ScreenedHead::ResidentBytes(const ScreenFile& file, const model::Range& rows) {
  const ScreenBasis& basis = file.basis();
  const int64_t basis_bytes = basis.width * basis.width * static_cast<int64_t>(sizeof(float));
  return ResidentScreen::ResidentBytes(basis, rows) + basis_bytes +
         (basis.width +
          std::accumulate(std::begin(kGatherSizes), std::end(kGatherSizes), int64_t{0})) *
             file.row_bytes();
}

int64_t ScreenedHead::resident_bytes() const { return ResidentBytes(*file_, rows_); }

absl::StatusOr<std::vector<float>> ScreenedHead::Probe(kernels::ConstRowsView hidden) {
  std::vector<float> seen(static_cast<size_t>(hidden.columns));
  const kernels::LinearOutput output{.matrix = identity_.get(),
                                     .bias = nullptr,
                                     .out = {.data = reinterpret_cast<float*>(out_->data()),
                                             .rows = 1,
                                             .columns = hidden.columns,
                                             .stride = hidden.columns}};
  RENGA_RETURN_IF_ERROR(backend_->Linear(hidden, std::span(&output, 1)));
  RENGA_RETURN_IF_ERROR(backend_->Download(*out_, 0, std::as_writable_bytes(std::span(seen))));
  return seen;
}

absl::Status ScreenedHead::ComputeRows(kernels::ConstRowsView hidden, std::vector<int32_t> ids,
                                       const Wanted& wanted, Search& search) {
  const auto row_bytes = static_cast<size_t>(file_->row_bytes());
  const size_t count = ids.size();
  kernels::WeightMatrix& matrix =
      **std::find_if(gather_.begin(), gather_.end(),
                     [&](const auto& fits) { return static_cast<size_t>(fits->rows()) >= count; });
  gathered_.resize(static_cast<size_t>(matrix.rows()) * row_bytes);
  std::sort(ids.begin(), ids.end());
  RENGA_ASSIGN_OR_RETURN(const int64_t bytes, ReadRows(ids, gathered_));
  // Places that are left get the first row again.
  for (size_t i = count; i < static_cast<size_t>(matrix.rows()); ++i) {
    std::copy_n(gathered_.begin(), row_bytes,
                gathered_.begin() + static_cast<int64_t>(i * row_bytes));
  }
  RENGA_RETURN_IF_ERROR(backend_->LoadRows(matrix, 0, gathered_));
  const kernels::LinearOutput output{.matrix = &matrix,
                                     .bias = nullptr,
                                     .out = {.data = reinterpret_cast<float*>(out_->data()),
                                             .rows = 1,
                                             .columns = matrix.rows(),
                                             .stride = matrix.rows()}};
  RENGA_RETURN_IF_ERROR(backend_->Linear(hidden, std::span(&output, 1)));
  std::vector<float> logits(count);
  RENGA_RETURN_IF_ERROR(backend_->Download(*out_, 0, std::as_writable_bytes(std::span(logits))));
  for (size_t i = 0; i < count; ++i) {
    const double noise = wanted.noise.has_value() ? wanted.noise->Of(ids[i]) : 0;
    search.exact.push_back({.value = logits[i] + noise, .logit = logits[i], .id = ids[i]});
  }
  search.exact_rows += static_cast<int64_t>(count);
  search.bytes_read += bytes;
  return absl::OkStatus();
}

absl::Status ScreenedHead::ReadSecondLevels(const ScreenQuery& query, const Wanted& wanted,
                                            Search& search) {
  constexpr int64_t kRowsAtOnce = 64;
  const auto each = static_cast<size_t>(file_->basis().fine_bytes());
  const auto count = static_cast<int64_t>(search.survivors.size());
  std::vector<absl::StatusOr<int64_t>> bytes(
      static_cast<size_t>((count + kRowsAtOnce - 1) / kRowsAtOnce), 0);
  pool_.ParallelFor(static_cast<int64_t>(bytes.size()), 1, [&](int64_t begin, int64_t end) {
    std::vector<std::byte> fine;
    for (int64_t piece = begin; piece < end; ++piece) {
      const int64_t first = piece * kRowsAtOnce;
      const auto ids = std::span<const int32_t>(search.survivors)
                           .subspan(static_cast<size_t>(first),
                                    static_cast<size_t>(std::min(kRowsAtOnce, count - first)));
      fine.resize(ids.size() * each);
      for (const int32_t id : ids) screen_->Prefetch(id);
      absl::StatusOr<int64_t>& read = bytes[static_cast<size_t>(piece)];
      read = file_->ReadFine(ids, fine);
      for (size_t i = 0; i < ids.size() && read.ok(); ++i) {
        screen_->Refine(ids[i], query, std::span(fine).subspan(i * each, each), wanted.noise);
      }
    }
  });
  for (const absl::StatusOr<int64_t>& read : bytes) {
    if (!read.ok()) return read.status();
    search.bytes_read += *read;
  }
  search.fine_rows += count;
  return absl::OkStatus();
}

// Keeps the survivors whose second level does not rule them out, the most promising first.
absl::Status ScreenedHead::Refine(const ScreenQuery& query, const Wanted& wanted, Search& search) {
  RENGA_RETURN_IF_ERROR(ReadSecondLevels(query, wanted, search));
  std::erase_if(search.survivors,
                [&](int32_t id) { return screen_->upper(id) < search.threshold; });
  std::sort(search.survivors.begin(), search.survivors.end(), [&](int32_t a, int32_t b) {
    const float upper_a = screen_->upper(a);
    const float upper_b = screen_->upper(b);
    return upper_a != upper_b ? upper_a > upper_b : a < b;
  });
  return absl::OkStatus();
}

absl::StatusOr<std::optional<model::HeadRow>> ScreenedHead::Find(kernels::ConstRowsView hidden,
                                                                 const Wanted& wanted) {
  Search search;
  if (wanted.allowed == nullptr || wanted.allowed->CountIn(rows_) > kGatherRows) {
    RENGA_ASSIGN_OR_RETURN(const bool found, SearchRows(hidden, wanted, search));
    if (!found) return std::nullopt;
    return Found(wanted, search);
  }
  // So few that nothing has to be ruled out.
  const std::vector<int32_t> ids = wanted.allowed->IdsIn(rows_);
  if (!ids.empty()) RENGA_RETURN_IF_ERROR(ComputeRows(hidden, ids, wanted, search));
  search.Raise(wanted);
  return Found(wanted, search);
}

absl::StatusOr<bool> ScreenedHead::SearchRows(kernels::ConstRowsView hidden, const Wanted& wanted,
                                              Search& search) {
  RENGA_ASSIGN_OR_RETURN(const std::vector<float> seen, Probe(hidden));
  if (!std::all_of(seen.begin(), seen.end(), [](float x) { return std::isfinite(x); })) {
    return false;
  }
  const ScreenQuery query(&file_->basis(), seen, pool_);
  screen_->Scan(query, wanted.noise, wanted.allowed, pool_);
  const int64_t promising = std::min(std::max<int64_t>(wanted.top_k, 1) + kMorePromising,
                                     std::min(rows_.size(), kGatherRows));
  const std::vector<int32_t> first = screen_->Promising(promising, wanted.noise);
  if (first.empty()) return false;
  RENGA_RETURN_IF_ERROR(ComputeRows(hidden, first, wanted, search));
  search.Raise(wanted);
  for (const int32_t id : first) screen_->Exclude(id);
  // Rounded down to a float.
  search.survivors = screen_->Survivors(
      std::nextafter(static_cast<float>(search.threshold), kNothing), wanted.noise, pool_);
  RENGA_RETURN_IF_ERROR(Refine(query, wanted, search));
  if (static_cast<int64_t>(search.survivors.size()) > rows_.size() / kMostSurvivorsDivisor) {
    return false;
  }
  std::span<const int32_t> left = search.survivors;
  size_t limit = left.size() > kGatherRows ? kGatherRows : kFewRows;
  while (!left.empty() && screen_->upper(left.front()) >= search.threshold) {
    // Few at first: they may rule out the rest. Where they do not, each call costs as well.
    const auto now = left.first(std::min(left.size(), limit));
    limit = std::min<size_t>(2 * limit, kGatherRows);
    RENGA_RETURN_IF_ERROR(
        ComputeRows(hidden, std::vector<int32_t>(now.begin(), now.end()), wanted, search));
    search.Raise(wanted);
    left = left.subspan(now.size());
  }
  return true;
}

std::optional<model::HeadRow> ScreenedHead::Found(const Wanted& wanted, Search& search) {
  std::sort(search.exact.begin(), search.exact.end(), Search::Better);
  model::HeadRow row;
  // Not minus infinity, which would say that the sum of all rows is known to be nothing.
  row.max_logit = std::numeric_limits<float>::lowest();
  for (const Search::Exact& exact : search.exact) {
    if (!std::isfinite(exact.logit)) return std::nullopt;
    if (exact.value < search.threshold) continue;
    row.max_logit = std::max(row.max_logit, exact.logit);
    row.ids.push_back(exact.id);
    row.logits.push_back(exact.logit);
  }
  if (wanted.top_k > 0 && !wanted.within.has_value()) {
    const size_t kept = std::min(row.ids.size(), static_cast<size_t>(wanted.top_k));
    row.ids.resize(kept);
    row.logits.resize(kept);
  }
  ++counts_.outputs;
  counts_.fine_rows += search.fine_rows;
  counts_.exact_rows += search.exact_rows;
  counts_.bytes_read += search.bytes_read;
  return row;
}

absl::StatusOr<int64_t> ScreenedHead::ReadRows(std::span<const int32_t> ids,
                                               std::span<std::byte> out) {
  constexpr size_t kRowsAtOnce = 16;
  const auto each = static_cast<size_t>(file_->row_bytes());
  std::vector<absl::StatusOr<int64_t>> read((ids.size() + kRowsAtOnce - 1) / kRowsAtOnce, 0);
  pool_.ParallelFor(static_cast<int64_t>(read.size()), 1, [&](int64_t begin, int64_t end) {
    for (auto piece = static_cast<size_t>(begin); piece < static_cast<size_t>(end); ++piece) {
      const size_t at = piece * kRowsAtOnce;
      const auto rows = ids.subspan(at, std::min(kRowsAtOnce, ids.size() - at));
      read[piece] = file_->ReadRows(rows, out.subspan(at * each, rows.size() * each));
    }
  });
  int64_t bytes = 0;
  for (const absl::StatusOr<int64_t>& piece : read) {
    if (!piece.ok()) return piece.status();
    bytes += *piece;
  }
  return bytes;
}

absl::Status ScreenedHead::AllLogits(kernels::ConstRowsView hidden, kernels::RowsView logits) {
  std::vector<std::byte> rows;
  std::vector<int32_t> ids;
  std::unique_ptr<kernels::WeightMatrix> matrix;
  for (int64_t begin = 0; begin < rows_.size(); begin += kFullRows) {
    const int64_t count = std::min(kFullRows, rows_.size() - begin);
    rows.resize(static_cast<size_t>(count * file_->row_bytes()));
    ids.resize(static_cast<size_t>(count));
    std::iota(ids.begin(), ids.end(), static_cast<int32_t>(rows_.begin + begin));
    RENGA_RETURN_IF_ERROR(ReadRows(ids, rows).status());
    if (matrix == nullptr || matrix->rows() != count) {
      RENGA_ASSIGN_OR_RETURN(matrix, backend_->CreateMatrix(file_->type(), count, hidden.columns));
    }
    RENGA_RETURN_IF_ERROR(backend_->LoadRows(*matrix, 0, rows));
    const kernels::LinearOutput output{.matrix = matrix.get(),
                                       .bias = nullptr,
                                       .out = {.data = logits.data + begin,
                                               .rows = logits.rows,
                                               .columns = count,
                                               .stride = logits.stride}};
    RENGA_RETURN_IF_ERROR(backend_->Linear(hidden, std::span(&output, 1)));
    // Rows and matrix are used again.
    RENGA_RETURN_IF_ERROR(backend_->Synchronize());
  }
  counts_.full_outputs += hidden.rows;
  counts_.full_bytes_read += rows_.size() * file_->row_bytes();
  return absl::OkStatus();
}

}  // namespace renga::engine

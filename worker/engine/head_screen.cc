#include "worker/engine/head_screen.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>
#include <numeric>

#include "absl/strings/str_cat.h"

namespace renga::engine {
namespace {

constexpr double kFloatRounding = 0x1p-24;
// Sums of a few floats are this much off at most, relative to the largest number in them.
constexpr double kShortSum = 2e-6;
constexpr double kLargestEntry = 255;
constexpr double kLargestWideEntry = 65535;
// Groups of columns whose tables have entries of two bytes: the bits that weigh most.
constexpr int64_t kWideGroups = 1;
// Sums of entries are at most about this.
constexpr double kLargestSum = 0x1p26;

// The columns of a block end at a multiple of 32 bytes, so what follows them can be found.
const std::byte* NormsOf(const std::byte* block, const ScreenBasis& basis) {
  return block + basis.columns() * kScreenBlockRows;
}

// Sums of neighbours by turns, which compilers keep in vectors.
[[gnu::always_inline]] inline double DotProduct(const float* direction,
                                                const std::vector<double>& numbers) {
  constexpr int64_t kSums = 16;
  const auto width = static_cast<int64_t>(numbers.size());
  double sums[kSums] = {};
  int64_t i = 0;
  for (; i + kSums <= width; i += kSums) {
    for (int64_t k = 0; k < kSums; ++k) {
      sums[k] += static_cast<double>(direction[i + k]) * numbers[i + k];
    }
  }
  for (; i < width; ++i) sums[0] += static_cast<double>(direction[i]) * numbers[i];
  return std::accumulate(std::begin(sums), std::end(sums), 0.0);
}

#if defined(__x86_64__)
[[gnu::target("avx2")]] double DotProductAvx2(const float* direction,
                                              const std::vector<double>& numbers) {
  return DotProduct(direction, numbers);
}
#endif

// How long the numbers are along a direction.
double Along(const float* direction, const std::vector<double>& numbers) {
#if defined(__x86_64__)
  static const bool has_avx2 = __builtin_cpu_supports("avx2") != 0;
  if (has_avx2) return DotProductAvx2(direction, numbers);
#endif
  return DotProduct(direction, numbers);
}

}  // namespace

absl::Status CheckBasis(const ScreenBasis& basis) {
  const auto width = static_cast<size_t>(basis.width);
  constexpr int64_t kMostColumns = int64_t{1} << 14;
  bool fits = basis.width > 0 && basis.rotation.size() == width * width &&
              basis.mean.size() == width && basis.step.size() == width &&
              basis.spread.size() == width && basis.bits.size() == width &&
              basis.places.size() % 8 == 0 && basis.columns() <= kMostColumns;
  for (const uint32_t place : basis.places) {
    fits = fits && (place == ScreenBasis::kNoBit ||
                    (place / 16 < width && place % 16 < basis.bits[place / 16]));
  }
  const auto usable = [](float x) { return std::isfinite(x) && x >= 0; };
  for (const float unit : basis.norm_units) fits = fits && usable(unit);
  fits = fits && usable(basis.norm_ratio) && usable(basis.rotation_error);
  if (fits) return absl::OkStatus();
  return absl::DataLossError("the screen of an output matrix contradicts itself; build it again");
}

const std::byte* ScalePlace(const std::byte* block, int64_t row, const ScreenBasis& basis) {
  return NormsOf(block, basis) + kErrorNorms * kScreenBlockRows + 2 * row;
}

float ScaleOf(const std::byte* block, int64_t row, const ScreenBasis& basis) {
  uint16_t half;
  std::memcpy(&half, ScalePlace(block, row, basis), sizeof(half));
  return std::bit_cast<float>(static_cast<uint32_t>(half) << 16);
}

ScreenQuery::ScreenQuery(const ScreenBasis* basis, std::span<const float> hidden,
                         base::ThreadPool& pool)
    : basis_(*basis) {
  Rotate(hidden, pool);
  MakeTables(pool);
  const double worths_rounding = MakeWorths();
  double squares = 0;
  double mean = 0;
  double mean_size = 0;
  double code_size = 0;
  for (int64_t j = 0; j < basis_.width; ++j) {
    squares += static_cast<double>(hidden[j]) * hidden[j];
    mean += basis_.mean[j] * turned_[j];
    mean_size += std::abs(basis_.mean[j] * turned_[j]);
    code_size += std::abs(basis_.step[j] * turned_[j]) * static_cast<double>(1 << basis_.bits[j]);
  }
  // The backend's own sums of floats count as well: no more than one rounding for each number.
  const double sum_rounding = 2 * static_cast<double>(basis_.width) * kFloatRounding;
  const double rounding =
      (basis_.rotation_error + sum_rounding) * basis_.norm_ratio * std::sqrt(squares) +
      table_rounding_ + kShortSum * code_size;
  first_.mean = static_cast<float>(mean);
  first_.mean_rounding = static_cast<float>(kShortSum * mean_size);
  second_.mean = first_.mean;
  second_.mean_rounding = first_.mean_rounding;
  SetErrors(0, rounding, first_);
  // Estimates begin with the first level's.
  SetErrors(1, rounding + worths_rounding, second_);
}

void ScreenQuery::Rotate(std::span<const float> hidden, base::ThreadPool& pool) {
  constexpr int64_t kDirectionsAtOnce = 40;
  const int64_t width = basis_.width;
  turned_.resize(static_cast<size_t>(width));
  const std::vector<double> numbers(hidden.begin(), hidden.begin() + width);
  pool.ParallelFor(width, kDirectionsAtOnce, [&](int64_t begin, int64_t end) {
    for (int64_t j = begin; j < end; ++j) {
      turned_[j] = Along(basis_.rotation.data() + j * width, numbers);
    }
  });
}

// Each set bit adds what it is worth; a table has the sums of its four bits.
void ScreenQuery::MakeTables(base::ThreadPool& pool) {
  const auto tables = static_cast<int64_t>(basis_.places.size()) / 4;
  constexpr int64_t kTablesAtOnce = 2 * kScreenGroupColumns;
  std::vector<TableSums> sums(static_cast<size_t>(tables));
  pool.ParallelFor(tables, kTablesAtOnce, [&](int64_t begin, int64_t end) {
    for (int64_t t = begin; t < end; ++t) SumTable(t, sums[t]);
  });
  double base = 0;
  for (const TableSums& table : sums) base += table.least;
  for (int64_t j = 0; j < basis_.width; ++j) {
    // Codes stand for the middles of their cells, which lie around 0.
    base -= basis_.step[j] * turned_[j] * static_cast<double>((1 << basis_.bits[j]) - 1) / 2;
  }
  first_.base = static_cast<float>(base);
  RoundTables(sums, pool);
}

void ScreenQuery::SumTable(int64_t t, TableSums& table) const {
  std::array<double, kTableEntries>& entries = table.entries;
  for (int64_t slot = 0; slot < 4; ++slot) {
    const uint32_t place = basis_.places[4 * t + slot];
    const double worth =
        place == ScreenBasis::kNoBit
            ? 0
            : basis_.step[place / 16] * turned_[place / 16] * static_cast<double>(1 << place % 16);
    table.least += std::min(worth, 0.0);
    table.range += std::abs(worth);
    const int64_t bit = int64_t{1} << slot;
    for (int64_t i = 0; i < bit; ++i) entries[bit + i] = entries[i] + worth;
  }
  for (double& entry : entries) entry -= table.least;
}

// Entries become whole numbers of their group's unit, as fine as the group's widest table allows;
// units are multiples of one, so that sums stay integers. What that loses is counted at its worst.
void ScreenQuery::RoundTables(const std::vector<TableSums>& sums, base::ThreadPool& pool) {
  const auto tables = static_cast<int64_t>(sums.size());
  constexpr int64_t kGroupTables = 2 * kScreenGroupColumns;
  const int64_t groups = (tables + kGroupTables - 1) / kGroupTables;
  double range = 0;
  for (const TableSums& table : sums) range += table.range;
  first_.unit = static_cast<float>(range / kLargestSum);
  if (first_.unit == 0) first_.unit = 1;
  tables_.wide_groups = std::min(kWideGroups, groups);
  tables_.low.resize(static_cast<size_t>(tables * kTableEntries));
  tables_.high.resize(
      static_cast<size_t>(std::min(tables, tables_.wide_groups * kGroupTables) * kTableEntries));
  tables_.factors.resize(static_cast<size_t>(groups));
  std::vector<double> lost(static_cast<size_t>(groups), 0.0);
  pool.ParallelFor(groups, 1, [&](int64_t begin, int64_t end) {
    for (int64_t group = begin; group < end; ++group) {
      const int64_t first = group * kGroupTables;
      lost[group] = RoundGroup(
          group,
          std::span(sums).subspan(static_cast<size_t>(first),
                                  static_cast<size_t>(std::min(kGroupTables, tables - first))));
    }
  });
  table_rounding_ = std::accumulate(lost.begin(), lost.end(), 0.0);
}

double ScreenQuery::RoundGroup(int64_t group, std::span<const TableSums> sums) {
  const bool wide = group < tables_.wide_groups;
  const double largest = wide ? kLargestWideEntry : kLargestEntry;
  double widest = 0;
  for (const TableSums& table : sums) widest = std::max(widest, table.range);
  const double factor = std::max(1.0, std::ceil(widest / first_.unit / largest));
  const double unit = factor * first_.unit;
  const double units = 1 / unit;
  tables_.factors[group] = static_cast<int32_t>(factor);
  int64_t at = group * 2 * kScreenGroupColumns * kTableEntries;
  double lost = 0;
  for (const TableSums& table : sums) {
    double worst = 0;
    for (const double exact : table.entries) {
      const auto rounded = static_cast<int32_t>(std::clamp(exact * units + 0.5, 0.0, largest));
      worst = std::max(worst, std::abs(exact - rounded * unit));
      tables_.low[at] = static_cast<uint8_t>(rounded & 255);
      if (wide) tables_.high[at] = static_cast<uint8_t>(rounded >> 8);
      ++at;
    }
    lost += worst;
  }
  return lost;
}

// A set bit moves the code's middle up by a quarter of its cell's width, a clear one down: half a
// cell where it is set, from a quarter below.
double ScreenQuery::MakeWorths() {
  const auto worth = [&](int64_t j) { return basis_.step[j] * turned_[j] / 2; };
  double widest = 0;
  double base = 0;
  for (int64_t j = 0; j < basis_.width; ++j) {
    widest = std::max(widest, std::abs(worth(j)));
    base -= worth(j) / 2;
  }
  const double most =
      std::min(double{BitWorths::kMost}, kLargestSum / static_cast<double>(basis_.width));
  second_.unit = static_cast<float>(widest / most);
  if (second_.unit == 0) second_.unit = 1;
  second_.base = static_cast<float>(base);
  std::vector<int32_t> rounded;
  double lost = 0;
  for (int64_t j = 0; j < basis_.width; ++j) {
    const double units = std::clamp(std::nearbyint(worth(j) / second_.unit), -most, most);
    rounded.push_back(static_cast<int32_t>(units));
    lost += std::abs(worth(j) - rounded.back() * double{second_.unit});
  }
  worths_ = BitWorths(rounded);
  return lost;
}

void ScreenQuery::SetErrors(int64_t level, double rounding, BoundFactors& factors) const {
  const auto unit = [&](int64_t norm) { return basis_.norm_units[level * kErrorNorms + norm]; };
  const auto up = [](double x) { return static_cast<float>(x * (1 + kShortSum)); };
  for (int64_t g = 0; g < kErrorNorms; ++g) {
    double squares = 0;
    for (int64_t j = ErrorGroup(g, basis_.width); j < ErrorGroup(g + 1, basis_.width); ++j) {
      squares += turned_[j] * turned_[j] / basis_.spread[j] / basis_.spread[j];
    }
    factors.of_norm[g] = up(std::sqrt(squares) * unit(g));
  }
  factors.rounding = up(rounding);
}

std::array<BlockPeak, 2> ScreenQuery::Bound(const std::array<const std::byte*, 2>& blocks,
                                            const std::array<BlockBounds*, 2>& bounds) const {
  int32_t sums[2 * kScreenBlockRows];
  ScanPair(blocks, basis_.columns(), tables_, sums);
  return {BoundBlock(sums, NormsOf(blocks[0], basis_), first_, *bounds[0]),
          BoundBlock(sums + kScreenBlockRows, NormsOf(blocks[1], basis_), first_, *bounds[1])};
}

RowBound ScreenQuery::Refine(float first, float scale, std::span<const std::byte> fine) const {
  const int64_t bytes = basis_.sign_bytes();
  const auto sum = static_cast<float>(SumBits(fine.data(), bytes, worths_));
  const auto* norms = reinterpret_cast<const uint8_t*>(fine.data() + bytes);
  float error = second_.rounding;
  for (int64_t g = 0; g < kErrorNorms; ++g) {
    error += second_.of_norm[g] * static_cast<float>(norms[g]);
  }
  const float estimate = first + scale * (second_.unit * sum + second_.base);
  return {.estimate = estimate, .upper = estimate + scale * error + second_.mean_rounding};
}

}  // namespace renga::engine

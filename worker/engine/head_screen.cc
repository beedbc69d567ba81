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
constexpr int64_t kTableEntries = 16;
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

float ScaleOf(const std::byte* block, int64_t row, const ScreenBasis& basis) {
  const std::byte* const scales = NormsOf(block, basis) + kErrorNorms * kScreenBlockRows;
  uint16_t half;
  std::memcpy(&half, scales + 2 * row, sizeof(half));
  return std::bit_cast<float>(static_cast<uint32_t>(half) << 16);
}

ScreenQuery::ScreenQuery(const ScreenBasis* basis, std::span<const float> hidden) : basis_(*basis) {
  Rotate(hidden);
  MakeTables();
  MakeSigns();
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
  second_ = first_;
  SetErrors(0, rounding, first_);
  SetErrors(1, rounding, second_);
}

void ScreenQuery::Rotate(std::span<const float> hidden) {
  const int64_t width = basis_.width;
  turned_.resize(static_cast<size_t>(width));
  for (int64_t j = 0; j < width; ++j) {
    const float* direction = basis_.rotation.data() + j * width;
    double sums[4] = {};
    int64_t i = 0;
    for (; i + 4 <= width; i += 4) {
      for (int64_t k = 0; k < 4; ++k) {
        sums[k] += static_cast<double>(direction[i + k]) * hidden[i + k];
      }
    }
    for (; i < width; ++i) sums[0] += static_cast<double>(direction[i]) * hidden[i];
    turned_[j] = (sums[0] + sums[1]) + (sums[2] + sums[3]);
  }
}

// Each set bit adds what it is worth; a table has the sums of its four bits.
void ScreenQuery::MakeTables() {
  const auto tables = static_cast<int64_t>(basis_.places.size()) / 4;
  std::vector<std::array<double, kTableEntries>> sums(static_cast<size_t>(tables));
  std::vector<double> ranges(sums.size(), 0.0);
  double base = 0;
  for (int64_t t = 0; t < tables; ++t) {
    std::array<double, kTableEntries>& entries = sums[t];
    double least = 0;
    for (int64_t slot = 0; slot < 4; ++slot) {
      const uint32_t place = basis_.places[4 * t + slot];
      const double worth = place == ScreenBasis::kNoBit
                               ? 0
                               : basis_.step[place / 16] * turned_[place / 16] *
                                     static_cast<double>(1 << place % 16);
      least += std::min(worth, 0.0);
      ranges[t] += std::abs(worth);
      const int64_t bit = int64_t{1} << slot;
      for (int64_t i = 0; i < bit; ++i) entries[bit + i] = entries[i] + worth;
    }
    for (double& entry : entries) entry -= least;
    base += least;
  }
  for (int64_t j = 0; j < basis_.width; ++j) {
    // Codes stand for the middles of their cells, which lie around 0.
    base -= basis_.step[j] * turned_[j] * static_cast<double>((1 << basis_.bits[j]) - 1) / 2;
  }
  first_.base = static_cast<float>(base);
  RoundTables(sums, ranges);
}

// Entries become whole numbers of their group's unit, as fine as the group's widest table allows;
// units are multiples of one, so that sums stay integers. What that loses is counted at its worst.
void ScreenQuery::RoundTables(const std::vector<std::array<double, kTableEntries>>& sums,
                              const std::vector<double>& ranges) {
  const auto tables = static_cast<int64_t>(sums.size());
  constexpr int64_t kGroupTables = 2 * kScreenGroupColumns;
  first_.unit =
      static_cast<float>(std::accumulate(ranges.begin(), ranges.end(), 0.0) / kLargestSum);
  if (first_.unit == 0) first_.unit = 1;
  tables_.wide_groups = std::min(kWideGroups, (tables + kGroupTables - 1) / kGroupTables);
  tables_.low.resize(static_cast<size_t>(tables * kTableEntries));
  tables_.high.resize(
      static_cast<size_t>(std::min(tables, tables_.wide_groups * kGroupTables) * kTableEntries));
  for (int64_t begin = 0; begin < tables; begin += kGroupTables) {
    const int64_t end = std::min(tables, begin + kGroupTables);
    const bool wide = begin / kGroupTables < tables_.wide_groups;
    const double largest = wide ? kLargestWideEntry : kLargestEntry;
    const double widest = *std::max_element(ranges.begin() + begin, ranges.begin() + end);
    const double factor = std::max(1.0, std::ceil(widest / first_.unit / largest));
    const double unit = factor * first_.unit;
    tables_.factors.push_back(static_cast<int32_t>(factor));
    for (int64_t t = begin; t < end; ++t) {
      double worst = 0;
      for (int64_t i = 0; i < kTableEntries; ++i) {
        const double exact = sums[t][i];
        const auto rounded = static_cast<int32_t>(std::clamp(exact / unit + 0.5, 0.0, largest));
        worst = std::max(worst, std::abs(exact - rounded * unit));
        tables_.low[t * kTableEntries + i] = static_cast<uint8_t>(rounded & 255);
        if (wide) tables_.high[t * kTableEntries + i] = static_cast<uint8_t>(rounded >> 8);
      }
      table_rounding_ += worst;
    }
  }
}

// A set bit moves the code's middle up by a quarter of its cell's width, a clear one down.
void ScreenQuery::MakeSigns() {
  const int64_t bytes = basis_.sign_bytes();
  signs_.resize(static_cast<size_t>(bytes * 256));
  std::array<double, 256> sums;
  for (int64_t byte = 0; byte < bytes; ++byte) {
    sums[0] = 0;
    for (int64_t k = 0; k < 8; ++k) {
      const int64_t j = byte * 8 + k;
      const double quarter = j < basis_.width ? basis_.step[j] * turned_[j] / 4 : 0;
      for (int64_t value = 0; value < int64_t{1} << k; ++value) {
        sums[(int64_t{1} << k) + value] = sums[value] + quarter;
        sums[value] -= quarter;
      }
    }
    std::copy(sums.begin(), sums.end(), signs_.begin() + byte * 256);
  }
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
  double sum = 0;
  const int64_t bytes = basis_.sign_bytes();
  for (int64_t byte = 0; byte < bytes; ++byte) {
    sum += signs_[byte * 256 + static_cast<uint8_t>(fine[byte])];
  }
  const auto* norms = reinterpret_cast<const uint8_t*>(fine.data() + bytes);
  float error = second_.rounding;
  for (int64_t g = 0; g < kErrorNorms; ++g) {
    error += second_.of_norm[g] * static_cast<float>(norms[g]);
  }
  const float estimate = first + scale * static_cast<float>(sum);
  return {.estimate = estimate, .upper = estimate + scale * error + second_.mean_rounding};
}

}  // namespace renga::engine

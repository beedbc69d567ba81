#include "worker/engine/screen_builder.h"

#include <algorithm>
#include <array>
#include <atomic>
#include <bit>
#include <cmath>
#include <cstring>
#include <numeric>

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "worker/engine/eigenvectors.h"

namespace renga::engine {
namespace {

constexpr int64_t kMaxBits = 8;
// The distance of levels that loses least of a normal distribution, in its deviations, by bits. A
// direction without bits has the cells of its second level around 0.
constexpr std::array<double, kMaxBits + 1> kSteps = {3.192,  1.596,  0.9957, 0.5860, 0.3352,
                                                     0.1881, 0.1041, 0.0569, 0.0308};
constexpr std::array<double, 5> kScaleFactors = {0.8, 0.9, 1.0, 1.12, 1.25};
// Rows shorter than this share of the usual have its scale.
constexpr double kLeastScale = 0.02;

using V4 = double __attribute__((vector_size(32)));

// out[r][j] = dot product of row r and direction j, in double: what is lost here is nothing beside
// what the rounding to codes loses.
class Rotation {
 public:
  Rotation(std::span<const float> directions, int64_t width)
      : width_(width), tiles_((width + 3) / 4), packed_(static_cast<size_t>(tiles_ * width * 4)) {
    for (int64_t j = 0; j < width; ++j) {
      for (int64_t i = 0; i < width; ++i) {
        packed_[((j / 4) * width + i) * 4 + j % 4] = directions[j * width + i];
      }
    }
  }

  // `count` rows of width numbers; `out` has width numbers for each.
  void Apply(const float* rows, int64_t count, double* out) const {
    for (int64_t tile = 0; tile < tiles_; ++tile) {
      int64_t r = 0;
      for (; r + 4 <= count; r += 4) Tile<4>(tile, rows + r * width_, out + r * width_);
      for (; r < count; ++r) Tile<1>(tile, rows + r * width_, out + r * width_);
    }
  }

 private:
  template <int count>
  void Tile(int64_t tile, const float* rows, double* out) const {
    const double* directions = packed_.data() + tile * width_ * 4;
    V4 sums[count] = {};
    for (int64_t i = 0; i < width_; ++i) {
      V4 four;
      std::memcpy(&four, directions + i * 4, sizeof(four));
      for (int r = 0; r < count; ++r) sums[r] += four * static_cast<double>(rows[r * width_ + i]);
    }
    const int64_t used = std::min<int64_t>(4, width_ - tile * 4);
    for (int r = 0; r < count; ++r) {
      for (int64_t k = 0; k < used; ++k) out[r * width_ + tile * 4 + k] = sums[r][k];
    }
  }

  const int64_t width_;
  const int64_t tiles_;
  std::vector<double> packed_;  // [tile of 4 directions][number][direction]
};

// The largest change of a dot product of unit vectors: |1 - R R'|.
float RotationError(const ScreenBasis& basis, const Rotation& rotation) {
  std::vector<double> products(basis.rotation.size());
  rotation.Apply(basis.rotation.data(), basis.width, products.data());
  double squares = 0;
  for (int64_t r = 0; r < basis.width; ++r) {
    for (int64_t j = 0; j < basis.width; ++j) {
      const double error = products[r * basis.width + j] - (r == j ? 1.0 : 0.0);
      squares += error * error;
    }
  }
  return static_cast<float>(std::sqrt(squares) * 1.001 + 1e-9);
}

// Directions, and how much hidden states have along each.
void TurnTo(const HiddenMoments& moments, ScreenBasis& basis) {
  const int64_t width = moments.width();
  const Eigenvectors eigen = SymmetricEigenvectors(moments.Mean(), width);
  basis.width = width;
  basis.rotation.assign(eigen.vectors.begin(), eigen.vectors.end());
  // Directions that the text never took may still be taken.
  constexpr double kLeastShare = 1e-6;
  constexpr double kMostShrinking = 0.7;
  const double least = std::max(eigen.values.front() * kLeastShare, 1e-30);
  // Of few samples the least values come out too small, by about this (Marchenko and Pastur).
  const double few = std::min(
      kMostShrinking, std::sqrt(static_cast<double>(width) /
                                static_cast<double>(std::max<int64_t>(1, moments.count()))));
  for (int64_t j = 0; j < width; ++j) {
    const double shrunk = 1 - few * static_cast<double>(j) / static_cast<double>(width);
    basis.spread.push_back(
        static_cast<float>(std::sqrt(std::max(eigen.values[j], least)) / shrunk));
  }
}

// Mean and deviation of the rows along each direction, from a few thousand of them.
absl::StatusOr<std::vector<double>> MeasureRows(int64_t rows, const RowReader& read,
                                                const Rotation& rotation, ScreenBasis& basis) {
  constexpr int64_t kSample = 4096;
  const int64_t width = basis.width;
  const int64_t stride = std::max<int64_t>(1, rows / kSample);
  std::vector<float> row(static_cast<size_t>(width));
  std::vector<double> turned(row.size());
  std::vector<double> sums(row.size(), 0.0);
  std::vector<double> squares(row.size(), 0.0);
  double count = 0;
  for (int64_t r = 0; r < rows; r += stride) {
    RENGA_RETURN_IF_ERROR(read(r, row));
    rotation.Apply(row.data(), 1, turned.data());
    for (int64_t j = 0; j < width; ++j) {
      sums[j] += turned[j];
      squares[j] += turned[j] * turned[j];
    }
    ++count;
  }
  std::vector<double> deviations(row.size());
  for (int64_t j = 0; j < width; ++j) {
    const double mean = sums[j] / count;
    if (!std::isfinite(mean) || !std::isfinite(squares[j])) {
      return absl::InvalidArgumentError("the output matrix holds numbers that are not finite");
    }
    basis.mean.push_back(static_cast<float>(mean));
    deviations[j] = std::sqrt(std::max(squares[j] / count - mean * mean, 1e-30));
  }
  return deviations;
}

// The more a direction adds to logits, the more bits: all of them lose alike then.
void ShareBits(const std::vector<double>& deviations, double bits, ScreenBasis& basis) {
  const auto share = [&](double level, int64_t j) {
    const double wanted = std::log2(deviations[j] * basis.spread[j]) + level;
    return static_cast<int64_t>(std::clamp(std::nearbyint(wanted), 0.0, double{kMaxBits}));
  };
  const auto total = [&](double level) {
    int64_t sum = 0;
    for (int64_t j = 0; j < basis.width; ++j) sum += share(level, j);
    return static_cast<double>(sum);
  };
  double low = -200;
  double high = 200;
  for (int i = 0; i < 60; ++i) {
    const double middle = (low + high) / 2;
    (total(middle) <= bits * static_cast<double>(basis.width) ? low : high) = middle;
  }
  for (int64_t j = 0; j < basis.width; ++j) {
    basis.bits.push_back(static_cast<uint8_t>(share(low, j)));
    basis.step.push_back(static_cast<float>(deviations[j] * kSteps[basis.bits.back()]));
  }
}

// The bits that weigh most come first, so that a group's tables weigh alike; within a group they go
// to different tables, so that no table's range is wide.
void PlaceBits(ScreenBasis& basis) {
  std::vector<uint32_t> order;
  for (int64_t j = 0; j < basis.width; ++j) {
    for (uint32_t bit = 0; bit < basis.bits[j]; ++bit) {
      order.push_back(static_cast<uint32_t>(j) * 16 + bit);
    }
  }
  const auto weight = [&](uint32_t place) {
    return basis.step[place / 16] * basis.spread[place / 16] * static_cast<float>(1 << place % 16);
  };
  std::stable_sort(order.begin(), order.end(),
                   [&](uint32_t a, uint32_t b) { return weight(a) > weight(b); });
  constexpr size_t kGroupBits = 8 * kScreenGroupColumns;
  basis.places.assign((order.size() + 7) / 8 * 8, ScreenBasis::kNoBit);
  for (size_t begin = 0; begin < order.size(); begin += kGroupBits) {
    const size_t tables = std::min(kGroupBits, basis.places.size() - begin) / 4;
    const size_t end = std::min(begin + kGroupBits, order.size());
    for (size_t i = begin; i < end; ++i) {
      basis.places[begin + (i - begin) % tables * 4 + (i - begin) / tables] = order[i];
    }
  }
}

// Turned rows become codes, and norms of what that lost; norms stay floats until all are known.
class Rounder {
 public:
  Rounder(const ScreenBasis& basis, const std::vector<double>& deviations)
      : basis_(basis), deviations_(deviations), codes_(deviations.size()), errors_(codes_.size()) {}

  struct Result {
    float scale = 0;
    std::array<float, 2 * kErrorNorms> norms{};  // at scale 1
    double length = 0;  // of the row, at scale 1; not finite: nothing else is known
  };

  Result Round(const double* turned) {
    double squares = 0;
    double length = 0;
    for (int64_t j = 0; j < basis_.width; ++j) {
      const double x = (turned[j] - basis_.mean[j]) / deviations_[j];
      squares += x * x;
      length += turned[j] * turned[j];
    }
    Result result;
    result.length = length;
    if (!std::isfinite(length)) return result;
    const double usual =
        std::max(std::sqrt(squares / static_cast<double>(basis_.width)), kLeastScale);
    double best = INFINITY;
    for (const double factor : kScaleFactors) {
      const float scale = Halved(usual * factor);
      const double cost = Cost(turned, scale);
      if (cost < best) {
        best = cost;
        result.scale = scale;
      }
    }
    result.length = std::sqrt(length) / result.scale;
    for (int64_t j = 0; j < basis_.width; ++j) codes_[j] = CodeOf(turned[j], j, result.scale);
    for (int64_t level = 0; level < 2; ++level) MeasureErrors(turned, level, result);
    return result;
  }

  void StoreCodes(int64_t row, std::byte* block) const {
    for (size_t i = 0; i < basis_.places.size(); ++i) {
      const uint32_t place = basis_.places[i];
      if (place == ScreenBasis::kNoBit) continue;
      const int bit = codes_[place / 16].code >> place % 16 & 1;
      block[static_cast<int64_t>(i / 8) * kScreenBlockRows + row] |=
          static_cast<std::byte>(bit << i % 8);
    }
  }
  void StoreSigns(std::byte* fine) const {
    for (size_t j = 0; j < codes_.size(); ++j) {
      if (codes_[j].upper_half) fine[j / 8] |= static_cast<std::byte>(1 << j % 8);
    }
  }

 private:
  struct Code {
    int code = 0;
    bool upper_half = false;
  };

  // What the upper half of the float says.
  static float Halved(double x) {
    return std::bit_cast<float>(std::bit_cast<uint32_t>(static_cast<float>(x)) & 0xffff0000u);
  }
  double Middle(int code, int64_t j) const {
    return code - static_cast<double>((1 << basis_.bits[j]) - 1) / 2;
  }
  Code CodeOf(double turned, int64_t j, double scale) const {
    const int levels = 1 << basis_.bits[j];
    const double x = (turned - basis_.mean[j]) / (scale * basis_.step[j]);
    Code code;
    code.code = static_cast<int>(std::clamp(std::floor(x + levels / 2.0), 0.0, levels - 1.0));
    code.upper_half = x >= Middle(code.code, j);
    return code;
  }
  // At level 0 of the code alone, at level 1 with its half.
  double ErrorOf(double turned, int64_t j, double scale, const Code& code, int64_t level) const {
    const double quarter = level == 0 ? 0 : code.upper_half ? 0.25 : -0.25;
    return turned - basis_.mean[j] - scale * basis_.step[j] * (Middle(code.code, j) + quarter);
  }
  double Cost(const double* turned, double scale) const {
    double cost = 0;
    for (int64_t j = 0; j < basis_.width; ++j) {
      const double error =
          ErrorOf(turned[j], j, scale, CodeOf(turned[j], j, scale), 0) * basis_.spread[j];
      cost += error * error;
    }
    return cost;
  }

  void MeasureErrors(const double* turned, int64_t level, Result& result) {
    for (int64_t j = 0; j < basis_.width; ++j) {
      errors_[j] = ErrorOf(turned[j], j, result.scale, codes_[j], level);
    }
    const auto keep = [&](int64_t norm, double squares) {
      result.norms[level * kErrorNorms + norm] =
          static_cast<float>(std::sqrt(squares) / result.scale * (1 + 1e-6));
    };
    for (int64_t g = 0; g < kErrorNorms; ++g) {
      double squares = 0;
      for (int64_t j = ErrorGroup(g, basis_.width); j < ErrorGroup(g + 1, basis_.width); ++j) {
        const double error = errors_[j] * basis_.spread[j];
        squares += error * error;
      }
      keep(g, squares);
    }
  }

  const ScreenBasis& basis_;
  const std::vector<double>& deviations_;
  std::vector<Code> codes_;
  std::vector<double> errors_;
};

std::byte RoundUp(float norm, float unit) {
  return static_cast<std::byte>(std::clamp(std::ceil(norm / unit), 0.0F, 255.0F));
}

// Rounds all rows and fills the screen.
class Builder {
 public:
  Builder(HeadScreen& screen, const Rotation& rotation, const std::vector<double>& deviations,
          base::ThreadPool& pool)
      : screen_(screen),
        rotation_(rotation),
        deviations_(deviations),
        pool_(pool),
        norms_(static_cast<size_t>(screen.rows) * 2 * kErrorNorms) {}

  absl::Status RoundRows(const RowReader& read) {
    constexpr int64_t kBlocksAtOnce = 64;
    const int64_t width = screen_.basis.width;
    std::vector<float> rows;
    for (int64_t first = 0; first < screen_.rows; first += kBlocksAtOnce * kScreenBlockRows) {
      const int64_t count = std::min(kBlocksAtOnce * kScreenBlockRows, screen_.rows - first);
      rows.resize(static_cast<size_t>(count * width));
      RENGA_RETURN_IF_ERROR(read(first, rows));
      const int64_t blocks = (count + kScreenBlockRows - 1) / kScreenBlockRows;
      pool_.ParallelFor(blocks, 1, [&](int64_t begin, int64_t end) {
        for (int64_t block = begin; block < end; ++block) {
          const int64_t from = block * kScreenBlockRows;
          RoundBlock(first + from, std::min(kScreenBlockRows, count - from),
                     rows.data() + from * width);
        }
      });
    }
    if (!finite_) {
      return absl::InvalidArgumentError("the output matrix holds numbers that are not finite");
    }
    return absl::OkStatus();
  }

  void StoreNorms() {
    ScreenBasis& basis = screen_.basis;
    for (int64_t norm = 0; norm < 2 * kErrorNorms; ++norm) {
      float most = 1e-30F;
      for (int64_t r = 0; r < screen_.rows; ++r) most = std::max(most, NormAt(r, norm));
      basis.norm_units[norm] = most / 255 * 1.00001F;
    }
    basis.norm_ratio = longest_ * 1.00001F;
    for (int64_t r = 0; r < screen_.rows; ++r) {
      std::byte* const norms = BlockOf(r) + basis.columns() * kScreenBlockRows;
      std::byte* const fine = FineOf(r) + basis.sign_bytes();
      for (int64_t g = 0; g < kErrorNorms; ++g) {
        norms[g * kScreenBlockRows + r % kScreenBlockRows] =
            RoundUp(NormAt(r, g), basis.norm_units[g]);
        fine[g] = RoundUp(NormAt(r, kErrorNorms + g), basis.norm_units[kErrorNorms + g]);
      }
    }
  }

 private:
  std::byte* BlockOf(int64_t row) {
    return screen_.blocks.data() + row / kScreenBlockRows * screen_.basis.block_bytes();
  }
  std::byte* FineOf(int64_t row) { return screen_.fine.data() + row * screen_.basis.fine_bytes(); }
  float& NormAt(int64_t row, int64_t norm) { return norms_[row * 2 * kErrorNorms + norm]; }

  void RoundBlock(int64_t first, int64_t count, const float* rows) {
    const ScreenBasis& basis = screen_.basis;
    std::vector<double> turned(static_cast<size_t>(count * basis.width));
    rotation_.Apply(rows, count, turned.data());
    Rounder rounder(basis, deviations_);
    float longest = 0;
    for (int64_t i = 0; i < count; ++i) {
      const int64_t row = first + i;
      const Rounder::Result result = rounder.Round(turned.data() + i * basis.width);
      if (!std::isfinite(result.length)) {
        finite_ = false;
        return;
      }
      longest = std::max(longest, static_cast<float>(result.length));
      rounder.StoreCodes(row % kScreenBlockRows, BlockOf(row));
      rounder.StoreSigns(FineOf(row));
      std::copy(result.norms.begin(), result.norms.end(), &NormAt(row, 0));
      const auto scale = static_cast<uint16_t>(std::bit_cast<uint32_t>(result.scale) >> 16);
      std::memcpy(BlockOf(row) + (basis.columns() + kErrorNorms) * kScreenBlockRows +
                      row % kScreenBlockRows * 2,
                  &scale, sizeof(scale));
    }
    float before = longest_;
    while (before < longest && !longest_.compare_exchange_weak(before, longest)) {
    }
  }

  HeadScreen& screen_;
  const Rotation& rotation_;
  const std::vector<double>& deviations_;
  base::ThreadPool& pool_;
  std::vector<float> norms_;  // rows x both levels' norms
  std::atomic<float> longest_ = 0;
  std::atomic<bool> finite_ = true;
};

}  // namespace

void HiddenMoments::Add(std::span<const float> rows) {
  for (size_t at = 0; at + width_ <= rows.size(); at += static_cast<size_t>(width_)) {
    const float* h = rows.data() + at;
    if (!std::all_of(h, h + width_, [](float x) { return std::isfinite(x); })) continue;
    for (int64_t i = 0; i < width_; ++i) {
      double* sums = sums_.data() + i * width_;
      const double x = h[i];
      for (int64_t j = 0; j <= i; ++j) sums[j] += x * h[j];
    }
    ++count_;
  }
}

std::vector<double> HiddenMoments::Mean() const {
  std::vector<double> mean(sums_.size(), 0.0);
  for (int64_t i = 0; i < width_; ++i) {
    if (count_ == 0) mean[i * width_ + i] = 1;
    for (int64_t j = 0; j <= i && count_ > 0; ++j) {
      mean[i * width_ + j] = mean[j * width_ + i] =
          sums_[i * width_ + j] / static_cast<double>(count_);
    }
  }
  return mean;
}

absl::StatusOr<HeadScreen> BuildScreen(int64_t rows, const RowReader& read,
                                       const HiddenMoments& moments, const ScreenOptions& options,
                                       base::ThreadPool& pool) {
  if (rows < 1 || moments.width() < 1 || !(options.bits >= 1 && options.bits <= kMaxBits)) {
    return absl::InvalidArgumentError(absl::StrCat("no screen has ", options.bits, " bits for ",
                                                   rows, " rows of ", moments.width(),
                                                   " numbers; 1 to 8 bits are possible"));
  }
  HeadScreen screen;
  screen.rows = rows;
  TurnTo(moments, screen.basis);
  const Rotation rotation(screen.basis.rotation, screen.basis.width);
  screen.basis.rotation_error = RotationError(screen.basis, rotation);
  RENGA_ASSIGN_OR_RETURN(const std::vector<double> deviations,
                         MeasureRows(rows, read, rotation, screen.basis));
  ShareBits(deviations, options.bits, screen.basis);
  PlaceBits(screen.basis);
  const int64_t blocks = (rows + kScreenBlockRows - 1) / kScreenBlockRows;
  screen.blocks.resize(static_cast<size_t>(blocks * screen.basis.block_bytes()));
  screen.fine.resize(static_cast<size_t>(rows * screen.basis.fine_bytes()));
  Builder builder(screen, rotation, deviations, pool);
  RENGA_RETURN_IF_ERROR(builder.RoundRows(read));
  builder.StoreNorms();
  return screen;
}

}  // namespace renga::engine

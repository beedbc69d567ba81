// The screen's promises: no bound is ever violated, what is found are the full head's rows and
// bits, and a damaged file is noticed.
#include "worker/engine/screened_head.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <fstream>
#include <numeric>
#include <random>
#include <string>

#include "absl/strings/str_cat.h"
#include "base/data_type.h"
#include "base/scoped_fd.h"
#include "base/testing/status_matchers.h"
#include "base/testing/temp_folder.h"
#include "model/testing/random_blocks.h"
#include "worker/engine/eigenvectors.h"
#include "worker/kernels/backend_factory.h"

namespace renga::engine {
namespace {

using base::DataType;
using ::renga::testing::StatusIs;

TEST(EigenvectorsTest, DiagonaliseSymmetricMatrices) {
  std::mt19937 random(1);
  std::normal_distribution<double> normal;
  for (const int64_t n : {1, 2, 3, 17, 64}) {
    SCOPED_TRACE(n);
    std::vector<double> matrix(static_cast<size_t>(n * n));
    for (int64_t i = 0; i < n; ++i) {
      for (int64_t j = 0; j <= i; ++j) matrix[i * n + j] = matrix[j * n + i] = normal(random);
    }
    if (n == 17) std::fill(matrix.begin(), matrix.end(), 2.0);  // one value, sixteen zeros
    const Eigenvectors eigen = SymmetricEigenvectors(matrix, n);
    ASSERT_TRUE(std::is_sorted(eigen.values.rbegin(), eigen.values.rend()));
    for (int64_t e = 0; e < n; ++e) {
      const double* v = eigen.vectors.data() + e * n;
      for (int64_t i = 0; i < n; ++i) {
        const double product = std::inner_product(v, v + n, matrix.data() + i * n, 0.0);
        EXPECT_NEAR(product, eigen.values[e] * v[i], 1e-9);
      }
      for (int64_t other = 0; other < n; ++other) {
        const double dot = std::inner_product(v, v + n, eigen.vectors.data() + other * n, 0.0);
        EXPECT_NEAR(dot, e == other ? 1.0 : 0.0, 1e-9);
      }
    }
  }
}

TEST(ScreenScanTest, EveryProcessorGivesTheSameSums) {
  std::mt19937 random(2);
  for (const int64_t columns : {1, 3, 31, 32, 33, 64, 700}) {
    for (const int64_t wide : {0, 1, 2}) {
      std::vector<std::byte> codes(static_cast<size_t>(2 * columns * kScreenBlockRows));
      for (std::byte& byte : codes) byte = static_cast<std::byte>(random());
      const std::array<const std::byte*, 2> blocks = {codes.data(),
                                                      codes.data() + columns * kScreenBlockRows};
      NibbleTables tables;
      tables.wide_groups = wide;
      for (int64_t i = 0; i < columns * 32; ++i) {
        tables.low.push_back(i % 3 == 0 ? 255 : static_cast<uint8_t>(random()));
        tables.high.push_back(i % 5 == 0 ? 255 : static_cast<uint8_t>(random()));
        if (i % (kScreenGroupColumns * 32) == 0) {
          tables.factors.push_back(static_cast<int32_t>(random() % 100));
        }
      }
      int32_t got[2 * kScreenBlockRows];
      int32_t want[2 * kScreenBlockRows];
      ScanPaths(columns).front().scan(blocks, columns, tables, want);
      const std::vector<std::byte> in_file = codes;
      for (const ScanPath& path : ScanPaths(columns)) {
        std::copy(in_file.begin(), in_file.end(), codes.begin());
        if (path.quads) InQuads(2 * columns, codes.data());
        path.scan(blocks, columns, tables, got);
        EXPECT_TRUE(std::equal(std::begin(got), std::end(got), want)) << columns << " " << wide;
      }
      std::copy(in_file.begin(), in_file.end(), codes.begin());
      ArrangeCodes(columns, codes.data());
      ArrangeCodes(columns, codes.data() + columns * kScreenBlockRows);
      ScanPair(blocks, columns, tables, got);
      EXPECT_TRUE(std::equal(std::begin(got), std::end(got), want)) << columns << " " << wide;
    }
  }
}

TEST(ScreenScanTest, EveryProcessorAddsTheWorthsOfTheBitsThatAreSet) {
  std::mt19937 random(4);
  for (const int64_t bytes : {0, 1, 7, 8, 9, 16, 80, 85, 700}) {
    std::vector<std::byte> bits(static_cast<size_t>(bytes));
    std::vector<int32_t> worths;
    for (int64_t i = 0; i < 8 * bytes; ++i) {
      const auto any = static_cast<int32_t>(random() % (2 * BitWorths::kMost + 1));
      worths.push_back(i % 5 == 0 ? BitWorths::kMost : any - BitWorths::kMost);
    }
    for (int round = 0; round < 10; ++round) {
      int32_t want = 0;
      for (int64_t i = 0; i < 8 * bytes; ++i) {
        const bool set = round == 0 || random() % 2 == 0;
        bits[i / 8] &= ~static_cast<std::byte>(1 << i % 8);
        if (!set) continue;
        bits[i / 8] |= static_cast<std::byte>(1 << i % 8);
        want += worths[i];
      }
      const BitWorths packed(worths);
      for (const BitPath path : BitPaths()) {
        EXPECT_EQ(path(bits.data(), bytes, packed), want) << bytes;
      }
      EXPECT_EQ(SumBits(bits.data(), bytes, packed), want) << bytes;
    }
  }
}

TEST(ScreenScanTest, EveryProcessorGivesTheSameBounds) {
  std::mt19937 random(3);
  std::normal_distribution<float> normal;
  std::vector<std::byte> norms(static_cast<size_t>((kErrorNorms + 2) * kScreenBlockRows));
  int32_t sums[kScreenBlockRows];
  for (int round = 0; round < 20; ++round) {
    for (std::byte& byte : norms) byte = static_cast<std::byte>(random());
    for (int64_t r = 0; r < kScreenBlockRows; ++r) {
      sums[r] = static_cast<int32_t>(random() % (1 << 30));
      norms[static_cast<size_t>(kErrorNorms * kScreenBlockRows + 2 * r + 1)] = std::byte{0x3f};
    }
    BoundFactors factors{.rounding = 0.01F,
                         .unit = 1e-7F,
                         .base = normal(random),
                         .mean = normal(random),
                         .mean_rounding = 1e-4F};
    for (float& factor : factors.of_norm) factor = std::abs(normal(random));
    BlockBounds want;
    const BlockPeak peak = BoundPaths().front()(sums, norms.data(), factors, want);
    EXPECT_EQ(peak.upper, *std::max_element(want.upper.begin(), want.upper.end()));
    EXPECT_EQ(peak.estimate, *std::max_element(want.estimate.begin(), want.estimate.end()));
    for (const BoundPath path : BoundPaths()) {
      BlockBounds got;
      const BlockPeak got_peak = path(sums, norms.data(), factors, got);
      EXPECT_EQ(got.estimate, want.estimate);
      EXPECT_EQ(got.upper, want.upper);
      EXPECT_EQ(got_peak.estimate, peak.estimate);
      EXPECT_EQ(got_peak.upper, peak.upper);
    }
  }
}

// Hidden states that vary along few directions, as real ones do.
class Hiddens {
 public:
  Hiddens(int64_t width, uint32_t seed) : width_(width), random_(seed) {
    for (int64_t i = 0; i < width * kDirections; ++i) directions_.push_back(normal_(random_));
  }
  std::vector<float> Next(float size = 1) {
    std::vector<float> h(static_cast<size_t>(width_));
    for (int64_t d = 0; d < kDirections; ++d) {
      const float amount = 4 * normal_(random_) / static_cast<float>(d + 1) + (d == 0 ? 3 : 0);
      for (int64_t i = 0; i < width_; ++i) h[i] += amount * directions_[d * width_ + i];
    }
    for (float& x : h) x = size * (x + 0.2F * normal_(random_));
    return h;
  }

 private:
  static constexpr int64_t kDirections = 8;
  const int64_t width_;
  std::mt19937 random_;
  std::normal_distribution<float> normal_;
  std::vector<float> directions_;
};

// A random matrix, its screen on disk, and the full head beside it.
class ScreenedHeadTest : public ::testing::Test {
 protected:
  void Make(DataType type, int64_t rows, int64_t width, const std::string& device = "cpu",
            double bits = 3) {
    rows_ = rows;
    width_ = width;
    type_ = type;
    row_bytes_ = *base::RowBytes(type, width);
    stored_.resize(static_cast<size_t>(rows * row_bytes_));
    model::RandomSource random(7);
    model::FillRandomBlocks(type, 0.5F, random, stored_);
    // Equal rows, far apart and side by side.
    for (const int64_t copy : {int64_t{1}, int64_t{40}, rows - 1}) CopyRow(0, copy);
    ASSERT_OK_AND_ASSIGN(backend_, kernels::CreateBackend({.device = device, .threads = 2}));
    ASSERT_OK_AND_ASSIGN(matrix_, backend_->CreateMatrix(type, rows, width));
    ASSERT_OK(backend_->LoadRows(*matrix_, 0, stored_));
    ASSERT_OK_AND_ASSIGN(hidden_, backend_->Allocate(width * 4));
    ASSERT_OK_AND_ASSIGN(logits_, backend_->Allocate(rows * 4));
    Hiddens text(width, 3);
    HiddenMoments moments(width);
    for (int i = 0; i < 300; ++i) moments.Add(text.Next());
    const RowReader read = [this](int64_t first, std::span<float> out) {
      base::GetDataTypeInfo(type_).to_float(stored_.data() + first * row_bytes_, out.data(),
                                            static_cast<int64_t>(out.size()));
      return absl::OkStatus();
    };
    base::ThreadPool pool(2);
    ASSERT_OK_AND_ASSIGN(screen_, BuildScreen(rows, read, moments, {.bits = bits}, pool));
    path_ = testing::NewTempFolder() + "/a.screen";
    ASSERT_OK(WriteScreen(path_, screen_,
                          {.model_id = "a model",
                           .type = type,
                           .read = [this](int64_t first, std::span<std::byte> out) {
                             std::copy_n(stored_.begin() + first * row_bytes_, out.size(),
                                         out.begin());
                             return absl::OkStatus();
                           }}));
  }

  void CopyRow(int64_t from, int64_t to) {
    std::copy_n(stored_.begin() + from * row_bytes_, row_bytes_, stored_.begin() + to * row_bytes_);
  }

  absl::StatusOr<std::unique_ptr<ScreenedHead>> Head(model::Range rows) {
    auto file = ScreenFile::Open(path_);
    if (!file.ok()) return file.status();
    return ScreenedHead::Create(*std::move(file), rows, backend_.get(), 2);
  }

  kernels::ConstRowsView Upload(const std::vector<float>& hidden) {
    EXPECT_OK(backend_->Upload(std::as_bytes(std::span(hidden)), *hidden_, 0));
    return {reinterpret_cast<const float*>(hidden_->data()), 1, width_, width_};
  }

  std::vector<float> FullLogits(kernels::ConstRowsView hidden) {
    const kernels::LinearOutput output{.matrix = matrix_.get(),
                                       .bias = nullptr,
                                       .out = {.data = reinterpret_cast<float*>(logits_->data()),
                                               .rows = 1,
                                               .columns = rows_,
                                               .stride = rows_}};
    EXPECT_OK(backend_->Linear(hidden, std::span(&output, 1)));
    std::vector<float> logits(static_cast<size_t>(rows_));
    EXPECT_OK(backend_->Download(*logits_, 0, std::as_writable_bytes(std::span(logits))));
    return logits;
  }

  static DrawNoise Noise(uint64_t seed, double temperature) {
    return {.gumbel = model::GumbelNoise(seed, 3), .temperature = temperature};
  }

  // What Find must give, from all logits.
  static void ExpectWanted(const std::vector<float>& logits, model::Range rows,
                           const ScreenedHead::Wanted& wanted, const model::HeadRow& got) {
    const auto value = [&](int32_t id) {
      return logits[id] + (wanted.noise.has_value() ? wanted.noise->Of(id) : 0.0);
    };
    std::vector<int32_t> order(static_cast<size_t>(rows.size()));
    std::iota(order.begin(), order.end(), static_cast<int32_t>(rows.begin));
    if (wanted.allowed != nullptr) {
      std::erase_if(order, [&](int32_t id) { return !wanted.allowed->Contains(id); });
    }
    std::stable_sort(order.begin(), order.end(),
                     [&](int32_t a, int32_t b) { return value(a) > value(b); });
    size_t count = std::min(order.size(), static_cast<size_t>(wanted.top_k));
    if (wanted.within.has_value()) {
      while (count < order.size() &&
             value(order[count]) >= value(order[0]) - double{*wanted.within}) {
        ++count;
      }
    }
    ASSERT_GE(got.ids.size(), count);
    for (size_t i = 0; i < count; ++i) EXPECT_EQ(got.ids[i], order[i]);
    for (size_t i = 0; i < got.ids.size(); ++i) {
      EXPECT_TRUE(wanted.allowed == nullptr || wanted.allowed->Contains(got.ids[i]));
      EXPECT_EQ(std::memcmp(&got.logits[i], &logits[got.ids[i]], sizeof(float)), 0);
    }
  }

  int64_t rows_ = 0;
  int64_t width_ = 0;
  int64_t row_bytes_ = 0;
  DataType type_ = DataType::kInvalid;
  std::vector<std::byte> stored_;
  std::string path_;
  HeadScreen screen_;
  std::unique_ptr<kernels::Backend> backend_;
  std::unique_ptr<kernels::WeightMatrix> matrix_;
  std::unique_ptr<kernels::Buffer> hidden_;
  std::unique_ptr<kernels::Buffer> logits_;
};

std::vector<std::vector<float>> AwkwardHiddens(int64_t width) {
  std::mt19937 random(11);
  std::normal_distribution<float> normal;
  Hiddens text(width, 4);
  std::vector<std::vector<float>> hiddens;
  for (int i = 0; i < 12; ++i) hiddens.push_back(text.Next());
  for (const float size : {1e-20F, 1e-3F, 1e3F, 1e15F}) hiddens.push_back(text.Next(size));
  for (const float size : {1.0F, 1e6F}) {  // directions that the text never took
    std::vector<float> h(static_cast<size_t>(width));
    for (float& x : h) x = size * normal(random);
    hiddens.push_back(h);
  }
  std::vector<float> one(static_cast<size_t>(width), 0.0F);
  hiddens.push_back(one);  // all logits alike
  one[5] = 9;
  hiddens.push_back(one);
  return hiddens;
}

TEST_F(ScreenedHeadTest, FindsTheFullHeadsRowsAndBits) {
  struct Kind {
    DataType type;
    int64_t width;
    const char* device;
    double bits = 3;
  };
  for (const Kind& c : {Kind{DataType::kQ8_0, 96, "cpu"}, Kind{DataType::kQ8_0, 64, "reference"},
                        Kind{DataType::kQ6_K, 256, "cpu", 5}, Kind{DataType::kF16, 33, "cpu"},
                        Kind{DataType::kBF16, 48, "cpu"}, Kind{DataType::kF32, 70, "cpu"}}) {
    SCOPED_TRACE(absl::StrCat(base::GetDataTypeInfo(c.type).name, " on ", c.device));
    ASSERT_NO_FATAL_FAILURE(Make(c.type, 1003, c.width, c.device, c.bits));
    int64_t answered = 0;
    for (const model::Range rows : {model::Range{0, 1003}, model::Range{37, 600}}) {
      ASSERT_OK_AND_ASSIGN(const auto head, Head(rows));
      for (const std::vector<float>& hidden : AwkwardHiddens(c.width)) {
        const kernels::ConstRowsView view = Upload(hidden);
        const std::vector<float> logits = FullLogits(view);
        for (const ScreenedHead::Wanted& wanted :
             {ScreenedHead::Wanted{.top_k = 1}, ScreenedHead::Wanted{.top_k = 40},
              ScreenedHead::Wanted{.top_k = 1, .within = 3.0F},
              ScreenedHead::Wanted{.within = 0.5F},
              ScreenedHead::Wanted{.top_k = 1, .noise = Noise(7, 0.7)},
              ScreenedHead::Wanted{.within = 2.0F, .noise = Noise(8, 3)}}) {
          ASSERT_OK_AND_ASSIGN(const auto found, head->Find(view, wanted));
          if (!found.has_value()) continue;  // the full head decides
          ++answered;
          EXPECT_EQ(found->sum_exp, 0);
          ASSERT_NO_FATAL_FAILURE(ExpectWanted(logits, rows, wanted, *found));
        }
      }
    }
    EXPECT_GT(answered, 50);
  }
}

// Sets of tokens of all sizes, few and many, and the rows that the states like least.
std::vector<model::TokenMask> AwkwardMasks(int64_t rows, const std::vector<float>& logits,
                                           std::mt19937& random) {
  std::vector<int32_t> worst(static_cast<size_t>(rows));
  std::iota(worst.begin(), worst.end(), 0);
  std::sort(worst.begin(), worst.end(),
            [&](int32_t a, int32_t b) { return logits[a] < logits[b]; });
  std::vector<model::TokenMask> masks;
  const auto add = [&](std::vector<int32_t> ids) {
    std::sort(ids.begin(), ids.end());
    masks.push_back(model::TokenMask::Of(std::move(ids), rows));
  };
  for (const int64_t few : {1, 2, 3, 200, 257, 500}) {
    add({worst.begin(), worst.begin() + few});
    std::shuffle(worst.begin() + few, worst.end(), random);
    add({worst.begin() + few, worst.begin() + std::min(2 * few, rows)});
  }
  for (const uint32_t share : {2, 3}) {
    std::vector<int32_t> ids;
    for (int32_t id = 0; id < rows; ++id) {
      if (random() % share == 0) ids.push_back(id);
    }
    add(std::move(ids));
  }
  return masks;
}

TEST_F(ScreenedHeadTest, AmongAllowedRowsFindsTheFullHeadsRowsAndBits) {
  std::mt19937 random(17);
  for (const DataType type : {DataType::kQ8_0, DataType::kF16}) {
    ASSERT_NO_FATAL_FAILURE(Make(type, 1003, 64));
    int64_t answered = 0;
    int64_t asked = 0;
    for (const model::Range rows : {model::Range{0, 1003}, model::Range{37, 600}}) {
      ASSERT_OK_AND_ASSIGN(const auto head, Head(rows));
      for (const std::vector<float>& hidden : AwkwardHiddens(64)) {
        const kernels::ConstRowsView view = Upload(hidden);
        const std::vector<float> logits = FullLogits(view);
        for (const model::TokenMask& mask : AwkwardMasks(1003, logits, random)) {
          for (ScreenedHead::Wanted wanted :
               {ScreenedHead::Wanted{.top_k = 1}, ScreenedHead::Wanted{.top_k = 40},
                ScreenedHead::Wanted{.within = 0.5F},
                ScreenedHead::Wanted{.top_k = 1, .noise = Noise(7, 0.7)},
                ScreenedHead::Wanted{.within = 1e-4F, .noise = Noise(8, 3)}}) {
            wanted.allowed = &mask;
            ASSERT_OK_AND_ASSIGN(const auto found, head->Find(view, wanted));
            ++asked;
            if (!found.has_value()) continue;  // the full head decides
            ++answered;
            EXPECT_EQ(found->sum_exp, 0);
            EXPECT_GT(found->max_logit, -std::numeric_limits<float>::infinity());
            ASSERT_NO_FATAL_FAILURE(ExpectWanted(logits, rows, wanted, *found));
          }
        }
      }
    }
    EXPECT_GT(answered, asked / 2);
  }
}

TEST_F(ScreenedHeadTest, NoBoundIsViolated) {
  for (const double bits : {1.0, 3.0, 6.0}) {
    SCOPED_TRACE(bits);
    ASSERT_NO_FATAL_FAILURE(Make(DataType::kF32, 1500, 64, "cpu", bits));
    const ScreenBasis& basis = screen_.basis;
    base::ThreadPool pool(2);
    for (size_t at = 0; at < screen_.blocks.size();
         at += static_cast<size_t>(basis.block_bytes())) {
      ArrangeCodes(basis.columns(), screen_.blocks.data() + at);
    }
    for (const std::vector<float>& hidden : AwkwardHiddens(64)) {
      const std::vector<float> logits = FullLogits(Upload(hidden));
      const ScreenQuery query(&basis, hidden, pool);
      double first_room = 0;
      double second_room = 0;
      for (int64_t row = 0; row < rows_; ++row) {
        const std::byte* const block =
            screen_.blocks.data() + row / kScreenBlockRows * basis.block_bytes();
        BlockBounds bounds;
        BlockBounds others;
        const BlockPeak peak = query.Bound({block, screen_.blocks.data()}, {&bounds, &others})[0];
        const float first_estimate = bounds.estimate[row % kScreenBlockRows];
        const float first_upper = bounds.upper[row % kScreenBlockRows];
        EXPECT_GE(first_upper, logits[row]);
        EXPECT_GE(peak.upper, first_upper);
        EXPECT_GE(peak.estimate, first_estimate);
        const auto fine =
            std::span(screen_.fine).subspan(row * basis.fine_bytes(), basis.fine_bytes());
        const RowBound second =
            query.Refine(first_estimate, ScaleOf(block, row % kScreenBlockRows, basis), fine);
        EXPECT_GE(second.upper, logits[row]);
        first_room += first_upper - logits[row];
        second_room += second.upper - logits[row];
      }
      EXPECT_LE(second_room, first_room);
    }
  }
}

// The bounds are of use: text's hidden states rule nearly all rows out.
TEST_F(ScreenedHeadTest, ReadsFewRows) {
  ASSERT_NO_FATAL_FAILURE(Make(DataType::kQ8_0, 8000, 96));
  ASSERT_OK_AND_ASSIGN(const auto head, Head({0, 8000}));
  Hiddens text(96, 3);
  constexpr int kOutputs = 20;
  for (int i = 0; i < kOutputs; ++i) {
    ASSERT_OK_AND_ASSIGN(const auto found, head->Find(Upload(text.Next()), {.top_k = 1}));
    ASSERT_TRUE(found.has_value());
  }
  EXPECT_EQ(head->counts().outputs, kOutputs);
  EXPECT_LT(head->counts().fine_rows, kOutputs * 800);
  EXPECT_LT(head->counts().exact_rows, kOutputs * 80);
}

TEST_F(ScreenedHeadTest, AllLogitsAreTheFullHeads) {
  ASSERT_NO_FATAL_FAILURE(Make(DataType::kQ8_0, 9000, 64));
  ASSERT_OK_AND_ASSIGN(const auto head, Head({100, 9000}));
  ASSERT_OK_AND_ASSIGN(const auto out, backend_->Allocate(8900 * 4));
  const kernels::ConstRowsView view = Upload(Hiddens(64, 9).Next());
  ASSERT_OK(head->AllLogits(
      view,
      {.data = reinterpret_cast<float*>(out->data()), .rows = 1, .columns = 8900, .stride = 8900}));
  std::vector<float> got(8900);
  ASSERT_OK(backend_->Download(*out, 0, std::as_writable_bytes(std::span(got))));
  const std::vector<float> want = FullLogits(view);
  EXPECT_TRUE(std::equal(got.begin(), got.end(), want.begin() + 100));
}

TEST_F(ScreenedHeadTest, NumbersThatAreNotFiniteGoToTheFullHead) {
  ASSERT_NO_FATAL_FAILURE(Make(DataType::kF32, 100, 32));
  ASSERT_OK_AND_ASSIGN(const auto head, Head({0, 100}));
  for (const float bad : {NAN, INFINITY}) {
    std::vector<float> hidden(32, 1.0F);
    hidden[7] = bad;
    ASSERT_OK_AND_ASSIGN(const auto found, head->Find(Upload(hidden), {.top_k = 1}));
    EXPECT_FALSE(found.has_value());
  }
}

TEST_F(ScreenedHeadTest, RowsAreTheSameFromMemoryAndFromDisk) {
  ASSERT_NO_FATAL_FAILURE(Make(DataType::kQ8_0, 3000, 64));
  ASSERT_OK_AND_ASSIGN(const auto file, ScreenFile::Open(path_));
  std::vector<int32_t> ids;
  for (int32_t id = 1; id < 3000; id += id % 7 == 0 ? 97 : 1) ids.push_back(id);
  const auto read = [&] {
    std::vector<std::byte> rows(ids.size() * static_cast<size_t>(row_bytes_));
    EXPECT_OK(file->ReadRows(ids, rows).status());
    return rows;
  };
  const std::vector<std::byte> warm = read();
  for (int i = 0; i < 3; ++i) {
    const base::ScopedFd fd(::open(path_.c_str(), O_RDONLY | O_CLOEXEC));
    ASSERT_EQ(::fsync(fd.get()), 0);
    ASSERT_EQ(::posix_fadvise(fd.get(), 0, 0, POSIX_FADV_DONTNEED), 0);
    EXPECT_EQ(read(), warm);
  }
  // One row at a time, as nothing was joined.
  std::vector<std::byte> row(static_cast<size_t>(row_bytes_));
  for (size_t i = 0; i < ids.size(); i += 50) {
    ASSERT_OK(file->ReadRows({&ids[i], 1}, row).status());
    EXPECT_TRUE(
        std::equal(row.begin(), row.end(), warm.begin() + static_cast<int64_t>(i * row.size())));
  }
}

TEST_F(ScreenedHeadTest, ADamagedFileIsNoticed) {
  ASSERT_NO_FATAL_FAILURE(Make(DataType::kQ8_0, 300, 64));
  std::ifstream in(path_, std::ios::binary);
  const std::string good(std::istreambuf_iterator<char>(in), {});
  const std::vector<float> hidden = Hiddens(64, 9).Next();
  // Everything is read by one query or another: find which bytes a top-300 and its screen touch.
  std::mt19937 random(5);
  for (int i = 0; i < 60; ++i) {
    std::string bad = good;
    const size_t at = random() % bad.size();
    bad[at] = static_cast<char>(bad[at] ^ 0x10);
    std::ofstream(path_, std::ios::binary) << bad;
    const auto head = Head({0, 300});
    if (!head.ok()) {
      EXPECT_THAT(head, StatusIs(absl::StatusCode::kDataLoss));
      continue;
    }
    ASSERT_OK_AND_ASSIGN(const auto file, ScreenFile::Open(path_));
    int damaged = 0;
    std::vector<std::byte> row(static_cast<size_t>(row_bytes_));
    std::vector<std::byte> fine(static_cast<size_t>(file->basis().fine_bytes()));
    for (int32_t r = 0; r < 300; ++r) {
      for (const absl::Status& status :
           {file->ReadRows({&r, 1}, row).status(), file->ReadFine({&r, 1}, fine).status()}) {
        if (status.ok()) continue;
        EXPECT_THAT(status, StatusIs(absl::StatusCode::kDataLoss));
        ++damaged;
      }
    }
    EXPECT_EQ(damaged, 1) << "byte " << at << " of " << bad.size();
  }
  std::ofstream(path_, std::ios::binary) << good.substr(0, good.size() - 1);
  EXPECT_THAT(Head({0, 300}), StatusIs(absl::StatusCode::kDataLoss));
}

}  // namespace
}  // namespace renga::engine

// That the conformance suite's imitation of AMX multiplies by tiles where the kernels should, and
// what is the same for all who use tiles.
#include <bit>
#include <cmath>
#include <limits>
#include <span>
#include <vector>

#include "base/testing/status_matchers.h"
#include "worker/kernels/conformance/device_under_test.h"
#include "worker/kernels/conformance/emulated_paths.h"
#include "worker/kernels/conformance/random_weights.h"
#include "worker/kernels/conformance/tile_model.h"

namespace renga::kernels::conformance {
namespace {

using base::DataType;

// Products of tiles for `tokens` tokens times a matrix, all on this thread.
int64_t Products(DataType type, int64_t tokens) {
  constexpr int64_t kRows = 40, kColumns = 512;
  const auto backend = CreateTestedBackend("like-amx", 1);
  auto matrix = backend->CreateMatrix(type, kRows, kColumns);
  EXPECT_OK(matrix);
  EXPECT_OK(backend->LoadRows(**matrix, 0, RandomWeights(type, kRows, kColumns, 1)));
  DeviceRows in(*backend, tokens, kColumns, Normal(tokens * kColumns, 2), Layout::kTight);
  DeviceRows out(*backend, tokens, kRows, Layout::kTight);
  const LinearOutput output{.matrix = matrix->get(), .bias = nullptr, .out = out.view()};
  const int64_t before = ModelTiles::products();
  EXPECT_OK(backend->Linear(in.view(), {&output, 1}));
  EXPECT_FALSE(ModelTiles::configured()) << "tiles were left to be saved";
  return ModelTiles::products() - before;
}

TEST(TilesTest, ManyTokensOfQuantisedFormats) {
  // Two passes of two panels, four products a step.
  EXPECT_EQ(Products(DataType::kQ4_0, 16), 2 * 4 * 512 / 32);
  EXPECT_EQ(Products(DataType::kQ8_0, 32), 2 * 4 * 512 / 32);
  EXPECT_EQ(Products(DataType::kQ4_0, 33), 2 * 2 * 4 * 512 / 32);
  EXPECT_EQ(Products(DataType::kQ2_K, 32), 2 * 4 * 512 / 64);
  EXPECT_EQ(Products(DataType::kQ3_K, 32), 2 * 4 * 512 / 64);
  for (const DataType two_planes :
       {DataType::kQ4_K, DataType::kQ5_K, DataType::kQ6_K, DataType::kIQ4_XS}) {
    EXPECT_EQ(Products(two_planes, 32), 2 * 2 * 4 * 512 / 64);
  }
}

TEST(TilesTest, FewTokensNeedNone) {
  EXPECT_EQ(Products(DataType::kQ4_K, 15), 0);
  EXPECT_EQ(Products(DataType::kQ4_K, 1), 0);
  EXPECT_EQ(Products(DataType::kF16, 32), 0);
}

TEST(TilesTest, EveryNumberOfTokensOfBf16) {
  EXPECT_EQ(Products(DataType::kBF16, 1), 2 * 2 * 4 * 512 / 32);
  EXPECT_EQ(Products(DataType::kBF16, 32), 2 * 2 * 4 * 512 / 32);
}

// Activations at the edges of float survive being cut into two bfloat16.
TEST(TilesTest, Bf16KeepsTheLargestInfinityAndNan) {
  constexpr float kEndless = std::numeric_limits<float>::infinity();
  const auto backend = CreateTestedBackend("like-amx", 1);
  ASSERT_OK_AND_ASSIGN(const auto matrix, backend->CreateMatrix(DataType::kBF16, 1, 1));
  const uint16_t half = base::FloatToBFloat16(0.5F);
  ASSERT_OK(backend->LoadRows(*matrix, 0, std::as_bytes(std::span(&half, 1))));
  const std::vector<float> input = {
      std::numeric_limits<float>::max(), std::numeric_limits<float>::lowest(), kEndless, -kEndless,
      std::bit_cast<float>(0x7fffffffu), std::bit_cast<float>(0xff800001u)};
  DeviceRows in(*backend, 6, 1, input, Layout::kTight);
  DeviceRows out(*backend, 6, 1, Layout::kTight);
  const LinearOutput output{.matrix = matrix.get(), .bias = nullptr, .out = out.view()};
  ASSERT_OK(backend->Linear(in.view(), {&output, 1}));
  const std::vector<float> got = out.Get();
  EXPECT_FLOAT_EQ(got[0] * 1e-3F, input[0] * 0.5e-3F);
  EXPECT_FLOAT_EQ(got[1] * 1e-3F, input[1] * 0.5e-3F);
  EXPECT_EQ(got[2], kEndless);
  EXPECT_EQ(got[3], -kEndless);
  EXPECT_TRUE(std::isnan(got[4]));
  EXPECT_TRUE(std::isnan(got[5]));
}

TEST(TilesTest, TilesCoverAllTokens) {
  for (int n = 1; n <= 256; ++n) {
    const cpu::TokenTiles tiles(n);
    SCOPED_TRACE(n);
    ASSERT_EQ(tiles.count % 2, 0);
    ASSERT_LE(tiles.rows, cpu::kTileRows);
    int next = 0;
    for (int tile = 0; tile < tiles.count; ++tile) {
      ASSERT_GE(tiles.First(tile), 0);
      ASSERT_LE(tiles.First(tile), next);
      next = tiles.First(tile) + tiles.rows;
    }
    ASSERT_EQ(next, n);
  }
}

}  // namespace
}  // namespace renga::kernels::conformance

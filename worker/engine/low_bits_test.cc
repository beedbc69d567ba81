#include "worker/engine/low_bits.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <random>
#include <set>
#include <vector>

#include "base/testing/status_matchers.h"
#include "model/testing/random_blocks.h"

namespace renga::engine {
namespace {

using base::DataType;
using ::renga::testing::StatusIs;

constexpr int64_t kLowBitColumns = 512;

std::vector<float> Decode(DataType type, const std::vector<std::byte>& row) {
  std::vector<float> numbers(kLowBitColumns);
  base::GetDataTypeInfo(type).to_float(row.data(), numbers.data(), kLowBitColumns);
  return numbers;
}

std::vector<std::byte> RandomRow(DataType type) {
  model::RandomSource random(7);
  std::vector<std::byte> row(static_cast<size_t>(*base::RowBytes(type, kLowBitColumns)));
  model::FillRandomBlocks(type, 0.05F, random, row);
  return row;
}

class LowBitsTest : public ::testing::TestWithParam<DataType> {};

// Neighbours in a block with a scale of their own, at least: 16 in Q6_K.
TEST_P(LowBitsTest, FewValuesNearTheOldOnesAndNothingElse) {
  const DataType type = GetParam();
  const std::vector<std::byte> before = RandomRow(type);
  std::vector<int32_t> cold;
  std::mt19937 random(3);
  for (int32_t i = 0; i < kLowBitColumns; ++i) {
    if (i < 64 || random() % 3 == 0) cold.push_back(i);
  }
  std::vector<std::byte> after = before;
  ASSERT_OK(RoundToThreeBits(type, after, cold));
  const std::vector<float> old_numbers = Decode(type, before);
  const std::vector<float> numbers = Decode(type, after);
  const std::set<int32_t> is_cold(cold.begin(), cold.end());
  int changed = 0;
  for (int64_t block = 0; block < kLowBitColumns; block += 16) {
    std::set<float> values;
    for (int64_t i = block; i < block + 16; ++i) {
      if (!is_cold.contains(static_cast<int32_t>(i))) {
        EXPECT_EQ(numbers[i], old_numbers[i]) << i;
        continue;
      }
      values.insert(numbers[i]);
      changed += numbers[i] != old_numbers[i] ? 1 : 0;
    }
    EXPECT_LE(values.size(), 8u);
  }
  EXPECT_GT(changed, 50);
  // What was rounded twice is what was rounded once.
  std::vector<std::byte> again = after;
  ASSERT_OK(RoundToThreeBits(type, again, cold));
  const std::vector<float> twice = Decode(type, again);
  for (int64_t i = 0; i < kLowBitColumns; ++i) EXPECT_NEAR(twice[i], numbers[i], 1e-3) << i;
  double error = 0;
  double all = 0;
  for (const int32_t i : cold) {
    error += std::pow(numbers[i] - old_numbers[i], 2);
    all += std::pow(old_numbers[i], 2);
  }
  EXPECT_LT(error, 0.1 * all);
}

INSTANTIATE_TEST_SUITE_P(Formats, LowBitsTest,
                         ::testing::Values(DataType::kF32, DataType::kF16, DataType::kBF16,
                                           DataType::kQ8_0, DataType::kQ4_0, DataType::kQ4_1,
                                           DataType::kQ5_0, DataType::kQ5_1, DataType::kQ4_K,
                                           DataType::kQ5_K, DataType::kQ6_K),
                         [](const auto& tested) {
                           return std::string(base::GetDataTypeInfo(tested.param).name);
                         });

TEST(LowBitsFormatsTest, OthersAreLeftOrRefused) {
  const std::vector<int32_t> cold = {0, 1, 2};
  const std::vector<std::byte> row = RandomRow(DataType::kQ3_K);
  std::vector<std::byte> same = row;
  EXPECT_OK(RoundToThreeBits(DataType::kQ3_K, same, cold));
  EXPECT_EQ(same, row);
  EXPECT_THAT(RoundToThreeBits(DataType::kIQ4_NL, same, cold),
              StatusIs(absl::StatusCode::kUnimplemented));
}

}  // namespace
}  // namespace renga::engine

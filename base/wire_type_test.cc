#include "base/wire_type.h"

#include <cmath>
#include <limits>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace renga::base {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();
constexpr float kNan = std::numeric_limits<float>::quiet_NaN();
constexpr float kHuge = std::numeric_limits<float>::max();

// 32 numbers that begin with `first`, then zeros.
std::vector<float> BlockOf(const std::vector<float>& first) {
  std::vector<float> block = first;
  block.resize(32);
  return block;
}

std::vector<float> ThereAndBack(DataType type, const std::vector<float>& numbers) {
  const DataTypeInfo& info = GetDataTypeInfo(type);
  const auto count = static_cast<int64_t>(numbers.size());
  std::vector<std::byte> bytes(static_cast<size_t>(count / info.block_elements * info.block_bytes));
  EncodeForWire(type, numbers, bytes);
  std::vector<float> back(numbers.size());
  info.to_float(bytes.data(), back.data(), count);
  return back;
}

TEST(WireType, NumbersThatTheFormatHasArriveAsTheyWere) {
  const std::vector<float> any = BlockOf({1.5f, -3.25f, kHuge, -0.0f, kInfinity, 1e-40f});
  EXPECT_EQ(ThereAndBack(DataType::kF32, any), any);
  const std::vector<float> halves = BlockOf({1.5f, -3.25f, 65504, -65504, 0x1p-24f, -kInfinity});
  EXPECT_EQ(ThereAndBack(DataType::kF16, halves), halves);
  const std::vector<float> codes = BlockOf({127, -127, 1, -64, 3});
  EXPECT_EQ(ThereAndBack(DataType::kQ8_0, codes), codes);
}

TEST(WireType, HugeNumbersStayFinite) {
  EXPECT_EQ(ThereAndBack(DataType::kF16, BlockOf({kHuge, -1e6f, 65520})),
            BlockOf({65504, -65504, 65504}));
  EXPECT_EQ(ThereAndBack(DataType::kQ8_0, BlockOf({kHuge, -kHuge, 65504})),
            BlockOf({127 * 65504.0f, -127 * 65504.0f, 65504}));
}

TEST(WireType, NotANumberStaysOne) {
  EXPECT_TRUE(std::isnan(ThereAndBack(DataType::kF16, BlockOf({1, kNan}))[1]));
  EXPECT_EQ(ThereAndBack(DataType::kF16, BlockOf({1, kNan}))[0], 1);
  for (const float odd : {kNan, kInfinity, -kInfinity}) {
    std::vector<float> two_blocks = BlockOf({1, odd});
    two_blocks.resize(64, 2.0f);
    const std::vector<float> back = ThereAndBack(DataType::kQ8_0, two_blocks);
    for (size_t i = 0; i < 32; ++i) EXPECT_TRUE(std::isnan(back[i]));
    for (size_t i = 32; i < 64; ++i) EXPECT_NEAR(back[i], 2.0f, 2.0f / 1024);
  }
}

TEST(WireType, TinyNumbersBecomeZeroAndNeverAnythingElse) {
  const std::vector<float> tiny = BlockOf({1e-30f, -1e-39f, 1e-8f});
  EXPECT_EQ(ThereAndBack(DataType::kQ8_0, tiny), BlockOf({}));
  EXPECT_EQ(ThereAndBack(DataType::kQ8_0, BlockOf({})), BlockOf({}));
}

TEST(WireType, EachBlockHasAScaleOfItsOwn) {
  std::vector<float> numbers = BlockOf({1000, -500});
  numbers.resize(64);
  numbers[32] = 0.01f;
  numbers[40] = -0.005f;
  const std::vector<float> back = ThereAndBack(DataType::kQ8_0, numbers);
  EXPECT_NEAR(back[0], 1000, 4.0f);
  EXPECT_NEAR(back[32], 0.01f, 4e-5f);
  EXPECT_NEAR(back[40], -0.005f, 4e-5f);
}

}  // namespace
}  // namespace renga::base

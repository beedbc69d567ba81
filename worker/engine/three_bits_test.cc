#include "worker/engine/three_bits.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <random>
#include <set>
#include <vector>

#include "base/data_type.h"

namespace renga::engine {
namespace {

using base::DataType;

std::vector<float> ThroughThreeBits(const std::vector<float>& numbers) {
  std::vector<std::byte> stored(
      static_cast<size_t>(*base::RowBytes(DataType::kR3, static_cast<int64_t>(numbers.size()))));
  StoreThreeBits(numbers, stored);
  std::vector<float> read(numbers.size());
  base::GetDataTypeInfo(DataType::kR3)
      .to_float(stored.data(), read.data(), static_cast<int64_t>(read.size()));
  return read;
}

TEST(ThreeBitsTest, NumbersStayNearInAtMostEightValuesOfABlock) {
  std::mt19937 random(5);
  std::normal_distribution<float> normal;
  for (const float size : {1e-3F, 1.0F, 1e3F}) {
    SCOPED_TRACE(size);
    std::vector<float> numbers(32 * 50);
    for (float& number : numbers) number = size * normal(random);
    const std::vector<float> read = ThroughThreeBits(numbers);
    double errors = 0;
    double squares = 0;
    for (size_t i = 0; i < numbers.size(); ++i) {
      errors += std::pow(read[i] - numbers[i], 2);
      squares += std::pow(numbers[i], 2);
    }
    // Eight even steps over normal numbers leave about a twenty-fifth of the power.
    EXPECT_LT(errors, 0.05 * squares);
    for (size_t at = 0; at < read.size(); at += 32) {
      const std::set<float> values(read.begin() + static_cast<int64_t>(at),
                                   read.begin() + static_cast<int64_t>(at) + 32);
      EXPECT_LE(values.size(), 8u);
    }
  }
}

TEST(ThreeBitsTest, WhatThreeBitsCanSayIsSaidExactly) {
  for (const float scale : {0.5F, -0.25F}) {
    std::vector<float> numbers;
    for (int i = 0; i < 64; ++i)
      numbers.push_back(scale * static_cast<float>((i * 7 + i / 32) % 8 - 4));
    EXPECT_EQ(ThroughThreeBits(numbers), numbers);
  }
  const std::vector<float> zeros(32, 0.0F);
  EXPECT_EQ(ThroughThreeBits(zeros), zeros);
}

TEST(ThreeBitsTest, BlocksThatCannotBeScaledBecomeZeros) {
  for (const float bad :
       {std::numeric_limits<float>::quiet_NaN(), std::numeric_limits<float>::infinity(), 1e30F}) {
    std::vector<float> numbers(64, 1.0F);
    numbers[40] = bad;
    const std::vector<float> read = ThroughThreeBits(numbers);
    EXPECT_EQ(read[3], 1.0F);
    for (size_t i = 32; i < 64; ++i) EXPECT_EQ(read[i], 0.0F);
  }
}

}  // namespace
}  // namespace renga::engine

#include "base/data_type.h"

#include <array>
#include <bit>
#include <cmath>
#include <cstring>
#include <functional>
#include <limits>
#include <random>
#include <set>
#include <string>
#include <vector>

#include "base/testing/status_matchers.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace renga::base {
namespace {

using ::renga::testing::IsOkAndHolds;
using ::renga::testing::StatusIs;
using ::testing::ElementsAre;
using ::testing::Optional;

// Halves, by the definition: sign, 5 bits of exponent, 10 of fraction.
double HalfByDefinition(uint16_t half) {
  const double sign = (half & 0x8000) != 0 ? -1 : 1;
  const int exponent = (half >> 10) & 31;
  const int fraction = half & 1023;
  if (exponent == 31) return fraction != 0 ? NAN : sign * INFINITY;
  if (exponent == 0) return sign * std::ldexp(fraction, -24);
  return sign * std::ldexp(1024 + fraction, exponent - 25);
}

TEST(HalfFloatTest, EveryHalfDecodesByDefinitionAndComesBack) {
  for (uint32_t i = 0; i < 0x10000; ++i) {
    const uint16_t half = static_cast<uint16_t>(i);
    const float value = HalfToFloat(half);
    if (std::isnan(HalfByDefinition(half))) {
      EXPECT_TRUE(std::isnan(value));
      EXPECT_TRUE(std::isnan(HalfToFloat(FloatToHalf(value))));
      continue;
    }
    ASSERT_EQ(value, HalfByDefinition(half)) << half;
    ASSERT_EQ(std::signbit(value), (half & 0x8000) != 0);
    ASSERT_EQ(FloatToHalf(value), half);
  }
}

TEST(HalfFloatTest, RoundsToNearestEven) {
  // Between each pair of neighbours: the middle goes to the even one, anything else to the nearer.
  for (uint16_t half = 0; half < 0x7bff; ++half) {
    const double low = HalfByDefinition(half);
    const double high = HalfByDefinition(static_cast<uint16_t>(half + 1));
    const float middle = static_cast<float>((low + high) / 2);  // exact: one more bit
    const uint16_t even = static_cast<uint16_t>(half % 2 == 0 ? half : half + 1);
    ASSERT_EQ(FloatToHalf(middle), even);
    ASSERT_EQ(FloatToHalf(-middle), even | 0x8000);
    ASSERT_EQ(FloatToHalf(std::nextafter(middle, 0.0F)), half);
    ASSERT_EQ(FloatToHalf(std::nextafter(middle, 1e9F)), half + 1);
  }
}

TEST(HalfFloatTest, Extremes) {
  EXPECT_EQ(FloatToHalf(65519.996F), 0x7bff);
  EXPECT_EQ(FloatToHalf(65520.0F), 0x7c00);
  EXPECT_EQ(FloatToHalf(1e30F), 0x7c00);
  EXPECT_EQ(FloatToHalf(-INFINITY), 0xfc00);
  EXPECT_EQ(FloatToHalf(1e-30F), 0);
  EXPECT_EQ(FloatToHalf(-0.0F), 0x8000);
  EXPECT_EQ(FloatToHalf(0x1p-25F), 0);  // half of the smallest: to even
  EXPECT_EQ(FloatToHalf(std::nextafter(0x1p-25F, 1.0F)), 1);
  // A NaN whose payload lies in the low bits must not become infinity.
  EXPECT_TRUE(std::isnan(HalfToFloat(FloatToHalf(std::bit_cast<float>(0x7f800001u)))));
}

TEST(BFloat16Test, ConvertsBothWays) {
  for (uint32_t i = 0; i < 0x10000; ++i) {
    const uint16_t bits = static_cast<uint16_t>(i);
    const float value = BFloat16ToFloat(bits);
    if (std::isnan(value)) {
      ASSERT_TRUE(std::isnan(BFloat16ToFloat(FloatToBFloat16(value))));
    } else {
      ASSERT_EQ(FloatToBFloat16(value), bits);
    }
  }
  EXPECT_EQ(FloatToBFloat16(std::bit_cast<float>(0x3f808000u)), 0x3f80);  // middle, to even
  EXPECT_EQ(FloatToBFloat16(std::bit_cast<float>(0x3f818000u)), 0x3f82);
  EXPECT_EQ(FloatToBFloat16(std::bit_cast<float>(0x3f808001u)), 0x3f81);
  EXPECT_EQ(FloatToBFloat16(std::numeric_limits<float>::max()), 0x7f80);
  EXPECT_TRUE(std::isnan(BFloat16ToFloat(FloatToBFloat16(std::bit_cast<float>(0x7f800001u)))));
}

TEST(DataTypeTableTest, NamesAndNumbersFindTheirRows) {
  std::set<uint32_t> ids;
  for (const DataTypeInfo& info : AllDataTypes()) {
    EXPECT_EQ(&GetDataTypeInfo(info.type), &info);
    EXPECT_THAT(DataTypeFromGgufId(info.gguf_id), Optional(info.type));
    EXPECT_THAT(DataTypeFromName(info.name), Optional(info.type));
    EXPECT_TRUE(ids.insert(info.gguf_id).second);
  }
  EXPECT_EQ(ids.size(), 15u);
  EXPECT_THAT(DataTypeFromName("q4_k"), Optional(DataType::kQ4_K));
  EXPECT_EQ(DataTypeFromName("Q9_K"), std::nullopt);
  EXPECT_EQ(DataTypeFromGgufId(4), std::nullopt);  // numbers GGUF once used and withdrew
  EXPECT_EQ(DataTypeFromGgufId(0xffffffff), std::nullopt);
}

TEST(RowBytesTest, CountsWholeBlocksAndRefusesTheRest) {
  EXPECT_THAT(RowBytes(DataType::kF32, 7), IsOkAndHolds(28));
  EXPECT_THAT(RowBytes(DataType::kQ4_0, 64), IsOkAndHolds(36));
  EXPECT_THAT(RowBytes(DataType::kQ4_K, 0), IsOkAndHolds(0));
  EXPECT_THAT(RowBytes(DataType::kQ6_K, 512), IsOkAndHolds(420));
  EXPECT_THAT(RowBytes(DataType::kQ4_K, 32), StatusIs(absl::StatusCode::kInvalidArgument));
  EXPECT_THAT(RowBytes(DataType::kQ8_0, -32), StatusIs(absl::StatusCode::kInvalidArgument));
  EXPECT_THAT(RowBytes(DataType::kF32, int64_t{1} << 61),
              StatusIs(absl::StatusCode::kInvalidArgument));
}

// Blocks made by hand: a writer for each field, independent of the decoder's arithmetic.
class Block {
 public:
  explicit Block(DataType type) : info_(GetDataTypeInfo(type)), bytes_(Size(info_), std::byte{0}) {}

  void PutHalf(size_t at, float value) {
    const uint16_t half = FloatToHalf(value);
    std::memcpy(&bytes_[at], &half, 2);
  }
  void Put(size_t at, int value) { bytes_[at] = static_cast<std::byte>(value); }
  // Adds `value` at a bit position counted from the byte's lowest bit.
  void Or(size_t at, int value, int shift) { bytes_[at] |= static_cast<std::byte>(value << shift); }

  // The numbers of the block between two copies of it: catches decoders that read their neighbour.
  std::vector<float> Decode() const {
    std::vector<std::byte> row(bytes_);
    row.insert(row.end(), bytes_.begin(), bytes_.end());
    std::vector<float> out(static_cast<size_t>(info_.block_elements) * 2);
    info_.to_float(row.data(), out.data(), static_cast<int64_t>(out.size()));
    std::vector<float> first(out.begin(), out.begin() + info_.block_elements);
    EXPECT_EQ(first, std::vector<float>(out.begin() + info_.block_elements, out.end()));
    return first;
  }

 private:
  static size_t Size(const DataTypeInfo& info) { return static_cast<size_t>(info.block_bytes); }
  const DataTypeInfo& info_;
  std::vector<std::byte> bytes_;
};

// n codes below `limit`, different for every seed and with no period a layout mistake could share.
std::vector<int> Codes(size_t n, int limit, uint32_t seed) {
  std::mt19937 random(seed);
  std::vector<int> codes(n);
  for (int& code : codes) code = static_cast<int>(random() % static_cast<uint32_t>(limit));
  return codes;
}

using ValueOf = std::function<float(size_t)>;
void ExpectValues(const Block& block, size_t n, const ValueOf& value_of) {
  const std::vector<float> values = block.Decode();
  ASSERT_EQ(values.size(), n);
  for (size_t i = 0; i < n; ++i) ASSERT_EQ(values[i], value_of(i)) << "number " << i;
}

void PutNibbles32(Block& block, size_t at, const std::vector<int>& q) {
  for (size_t i = 0; i < 32; ++i) block.Or(at + i % 16, q[i] & 15, i < 16 ? 0 : 4);
}
void PutFifthBits32(Block& block, size_t at, const std::vector<int>& q) {
  for (size_t i = 0; i < 32; ++i) block.Or(at + i / 8, q[i] >> 4, static_cast<int>(i % 8));
}

TEST(DecodeTest, PlainFormats) {
  std::array<std::byte, 8> bytes;
  const std::array<float, 2> floats = {1.5F, -3.25e-7F};
  std::memcpy(bytes.data(), floats.data(), 8);
  std::vector<float> out(2);
  GetDataTypeInfo(DataType::kF32).to_float(bytes.data(), out.data(), 2);
  EXPECT_THAT(out, ElementsAre(1.5F, -3.25e-7F));
  const std::array<uint16_t, 2> halves = {0x3c00, 0x8001};
  std::memcpy(bytes.data(), halves.data(), 4);
  GetDataTypeInfo(DataType::kF16).to_float(bytes.data(), out.data(), 2);
  EXPECT_THAT(out, ElementsAre(1.0F, -0x1p-24F));
  GetDataTypeInfo(DataType::kBF16).to_float(bytes.data(), out.data(), 2);
  EXPECT_THAT(out, ElementsAre(0x1p-7F, std::bit_cast<float>(0x80010000u)));
}

TEST(DecodeTest, Q8_0) {
  const std::vector<int> q = Codes(32, 256, 1);
  Block block(DataType::kQ8_0);
  block.PutHalf(0, 0.25F);
  for (size_t i = 0; i < 32; ++i) block.Put(2 + i, q[i] - 128);
  ExpectValues(block, 32, [&](size_t i) { return 0.25F * static_cast<float>(q[i] - 128); });
}

TEST(DecodeTest, Q4_0AndQ4_1) {
  const std::vector<int> q = Codes(32, 16, 2);
  Block q4_0(DataType::kQ4_0);
  q4_0.PutHalf(0, -0.5F);
  PutNibbles32(q4_0, 2, q);
  ExpectValues(q4_0, 32, [&](size_t i) { return -0.5F * static_cast<float>(q[i] - 8); });
  Block q4_1(DataType::kQ4_1);
  q4_1.PutHalf(0, 0.5F);
  q4_1.PutHalf(2, -3.0F);
  PutNibbles32(q4_1, 4, q);
  ExpectValues(q4_1, 32, [&](size_t i) { return 0.5F * static_cast<float>(q[i]) - 3.0F; });
}

TEST(DecodeTest, R3IsInNoFile) {
  std::vector<std::byte> block(14);
  const uint16_t scale = FloatToHalf(0.5F);
  std::memcpy(block.data(), &scale, sizeof(scale));
  block[2 + 1] = std::byte{1 << 5};      // third bit of number 4 * 5 + 1
  block[6 + 4 + 1] = std::byte{2 << 4};  // low bits of the same
  float numbers[32];
  GetDataTypeInfo(DataType::kR3).to_float(block.data(), numbers, 32);
  for (int i = 0; i < 32; ++i) EXPECT_EQ(numbers[i], i == 21 ? 0.5F * (6 - 4) : 0.5F * -4) << i;
  EXPECT_EQ(DataTypeFromGgufId(GetDataTypeInfo(DataType::kR3).gguf_id), std::nullopt);
  EXPECT_EQ(DataTypeFromName("R3"), std::nullopt);
}

TEST(DecodeTest, Q5_0AndQ5_1) {
  const std::vector<int> q = Codes(32, 32, 3);
  Block q5_0(DataType::kQ5_0);
  q5_0.PutHalf(0, 2.0F);
  PutFifthBits32(q5_0, 2, q);
  PutNibbles32(q5_0, 6, q);
  ExpectValues(q5_0, 32, [&](size_t i) { return 2.0F * static_cast<float>(q[i] - 16); });
  Block q5_1(DataType::kQ5_1);
  q5_1.PutHalf(0, 2.0F);
  q5_1.PutHalf(2, 0.125F);
  PutFifthBits32(q5_1, 4, q);
  PutNibbles32(q5_1, 8, q);
  ExpectValues(q5_1, 32, [&](size_t i) { return 2.0F * static_cast<float>(q[i]) + 0.125F; });
}

constexpr int kTable[16] = {-127, -104, -83, -65, -49, -35, -22, -10,
                            1,    13,   25,  38,  53,  69,  89,  113};

TEST(DecodeTest, IQ4_NL) {
  const std::vector<int> q = Codes(32, 16, 4);
  Block block(DataType::kIQ4_NL);
  block.PutHalf(0, 0.5F);
  PutNibbles32(block, 2, q);
  ExpectValues(block, 32, [&](size_t i) { return 0.5F * static_cast<float>(kTable[q[i]]); });
}

TEST(DecodeTest, IQ4_XS) {
  const std::vector<int> q = Codes(256, 16, 5);
  const std::vector<int> s = Codes(8, 64, 6);
  Block block(DataType::kIQ4_XS);
  block.PutHalf(0, 0.5F);
  for (size_t g = 0; g < 8; ++g) {
    block.Or(2 + g / 4, s[g] >> 4, static_cast<int>(g % 4 * 2));
    block.Or(4 + g / 2, s[g] & 15, g % 2 == 0 ? 0 : 4);
    PutNibbles32(block, 8 + 16 * g, {q.begin() + static_cast<int64_t>(g) * 32, q.end()});
  }
  ExpectValues(block, 256, [&](size_t i) {
    return 0.5F * static_cast<float>((s[i / 32] - 32) * kTable[q[i]]);
  });
}

// The two-bit fields of Q2_K, Q3_K and Q6_K: 128 numbers in 32 bytes, run after run.
void PutPairs(Block& block, size_t at, const std::vector<int>& q, int from_bit) {
  for (size_t half = 0; half < 2; ++half) {
    for (size_t run = 0; run < 4; ++run) {
      for (size_t i = 0; i < 32; ++i) {
        block.Or(at + half * 32 + i, (q[half * 128 + run * 32 + i] >> from_bit) & 3,
                 static_cast<int>(run * 2));
      }
    }
  }
}

TEST(DecodeTest, Q2_K) {
  const std::vector<int> q = Codes(256, 4, 7);
  const std::vector<int> s = Codes(16, 16, 8);
  const std::vector<int> t = Codes(16, 16, 9);
  Block block(DataType::kQ2_K);
  for (size_t g = 0; g < 16; ++g) block.Put(g, s[g] | t[g] << 4);
  PutPairs(block, 16, q, 0);
  block.PutHalf(80, 0.5F);
  block.PutHalf(82, 0.25F);
  ExpectValues(block, 256, [&](size_t i) {
    return 0.5F * static_cast<float>(s[i / 16] * q[i]) - 0.25F * static_cast<float>(t[i / 16]);
  });
}

TEST(DecodeTest, Q3_K) {
  const std::vector<int> q = Codes(256, 8, 10);
  const std::vector<int> s = Codes(16, 64, 11);
  Block block(DataType::kQ3_K);
  for (size_t i = 0; i < 256; ++i) block.Or(i % 32, q[i] >> 2, static_cast<int>(i / 32));
  PutPairs(block, 32, q, 0);
  for (size_t g = 0; g < 16; ++g) {
    block.Or(96 + g % 8, s[g] & 15, g < 8 ? 0 : 4);
    block.Or(104 + g % 4, s[g] >> 4, static_cast<int>(g / 4 * 2));
  }
  block.PutHalf(108, 0.5F);
  ExpectValues(block, 256,
               [&](size_t i) { return 0.5F * static_cast<float>((s[i / 16] - 32) * (q[i] - 4)); });
}

void PutSixBitPairs(Block& block, size_t at, const std::vector<int>& s, const std::vector<int>& t) {
  for (size_t g = 0; g < 4; ++g) {
    block.Put(at + g, s[g] | (s[g + 4] >> 4) << 6);
    block.Put(at + 4 + g, t[g] | (t[g + 4] >> 4) << 6);
    block.Put(at + 8 + g, (s[g + 4] & 15) | (t[g + 4] & 15) << 4);
  }
}
void PutNibbleGroups(Block& block, size_t at, const std::vector<int>& q) {
  for (size_t i = 0; i < 256; ++i) {
    block.Or(at + i / 64 * 32 + i % 32, q[i] & 15, i % 64 < 32 ? 0 : 4);
  }
}

TEST(DecodeTest, Q4_KAndQ5_K) {
  const std::vector<int> q = Codes(256, 32, 12);
  const std::vector<int> s = Codes(8, 64, 13);
  const std::vector<int> t = Codes(8, 64, 14);
  Block q4(DataType::kQ4_K);
  Block q5(DataType::kQ5_K);
  for (Block* block : {&q4, &q5}) {
    block->PutHalf(0, 0.5F);
    block->PutHalf(2, 0.25F);
    PutSixBitPairs(*block, 4, s, t);
  }
  PutNibbleGroups(q4, 16, q);
  for (size_t i = 0; i < 256; ++i) q5.Or(16 + i % 32, q[i] >> 4, static_cast<int>(i / 32));
  PutNibbleGroups(q5, 48, q);
  const auto value = [&](size_t i, int code) {
    return 0.5F * static_cast<float>(s[i / 32] * code) - 0.25F * static_cast<float>(t[i / 32]);
  };
  ExpectValues(q4, 256, [&](size_t i) { return value(i, q[i] & 15); });
  ExpectValues(q5, 256, [&](size_t i) { return value(i, q[i]); });
}

TEST(DecodeTest, Q6_K) {
  const std::vector<int> q = Codes(256, 64, 15);
  const std::vector<int> s = Codes(16, 256, 16);
  Block block(DataType::kQ6_K);
  for (size_t i = 0; i < 256; ++i) {
    block.Or(i / 128 * 64 + i % 64, q[i] & 15, i % 128 < 64 ? 0 : 4);
  }
  PutPairs(block, 128, q, 4);
  for (size_t g = 0; g < 16; ++g) block.Put(192 + g, s[g] - 128);
  block.PutHalf(208, 0.5F);
  ExpectValues(block, 256, [&](size_t i) {
    return 0.5F * static_cast<float>((s[i / 16] - 128) * (q[i] - 32));
  });
}

}  // namespace
}  // namespace renga::base

#include "base/data_type.h"

#include <array>
#include <cstring>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"

namespace renga::base {
namespace {

// The byte layouts are described in docs/FORMATS.md. Every product below is exact in float (a
// half has 11 significant bits, scale and code together at most 12), so where a format has a
// minimum, adding it is the only rounding.

// Field access: blocks have no alignment, numbers are little endian.
uint8_t Byte(const std::byte* p) { return std::to_integer<uint8_t>(*p); }
int32_t SignedByte(const std::byte* p) { return static_cast<int8_t>(Byte(p)); }
uint16_t Load16(const std::byte* p) {
  uint16_t value;
  std::memcpy(&value, p, sizeof(value));
  return value;
}
uint32_t Load32(const std::byte* p) {
  uint32_t value;
  std::memcpy(&value, p, sizeof(value));
  return value;
}
float LoadHalf(const std::byte* p) { return HalfToFloat(Load16(p)); }
int32_t LowNibble(const std::byte* p) { return Byte(p) & 15; }
int32_t HighNibble(const std::byte* p) { return Byte(p) >> 4; }

void DecodeF32(const std::byte* in, float* out) { std::memcpy(out, in, sizeof(float)); }
void DecodeF16(const std::byte* in, float* out) { *out = LoadHalf(in); }
void DecodeBF16(const std::byte* in, float* out) { *out = BFloat16ToFloat(Load16(in)); }

void DecodeQ8_0(const std::byte* in, float* out) {
  const float scale = LoadHalf(in);
  for (int i = 0; i < 32; ++i) out[i] = scale * static_cast<float>(SignedByte(in + 2 + i));
}

void DecodeQ4_0(const std::byte* in, float* out) {
  const float scale = LoadHalf(in);
  for (int i = 0; i < 16; ++i) {
    out[i] = scale * static_cast<float>(LowNibble(in + 2 + i) - 8);
    out[i + 16] = scale * static_cast<float>(HighNibble(in + 2 + i) - 8);
  }
}

void DecodeQ4_1(const std::byte* in, float* out) {
  const float scale = LoadHalf(in);
  const float minimum = LoadHalf(in + 2);
  for (int i = 0; i < 16; ++i) {
    out[i] = scale * static_cast<float>(LowNibble(in + 4 + i)) + minimum;
    out[i + 16] = scale * static_cast<float>(HighNibble(in + 4 + i)) + minimum;
  }
}

// The fifth bit of number i of a Q5_0 or Q5_1 block, in its place.
int32_t FifthBit(uint32_t high_bits, int i) {
  return static_cast<int32_t>((high_bits >> i) & 1) << 4;
}

void DecodeQ5_0(const std::byte* in, float* out) {
  const float scale = LoadHalf(in);
  const uint32_t high = Load32(in + 2);
  for (int i = 0; i < 16; ++i) {
    out[i] = scale * static_cast<float>((LowNibble(in + 6 + i) | FifthBit(high, i)) - 16);
    out[i + 16] =
        scale * static_cast<float>((HighNibble(in + 6 + i) | FifthBit(high, i + 16)) - 16);
  }
}

void DecodeQ5_1(const std::byte* in, float* out) {
  const float scale = LoadHalf(in);
  const float minimum = LoadHalf(in + 2);
  const uint32_t high = Load32(in + 4);
  for (int i = 0; i < 16; ++i) {
    out[i] = scale * static_cast<float>(LowNibble(in + 8 + i) | FifthBit(high, i)) + minimum;
    out[i + 16] =
        scale * static_cast<float>(HighNibble(in + 8 + i) | FifthBit(high, i + 16)) + minimum;
  }
}

// Position of number i of a 256 block whose codes are 2 bits in 64 bytes: each 32 bytes hold 128
// numbers, four runs of 32 at shifts 0, 2, 4, 6.
int TwoBitByte(int i) { return i / 128 * 32 + i % 32; }
int TwoBitShift(int i) { return i % 128 / 32 * 2; }

void DecodeQ2_K(const std::byte* in, float* out) {
  const std::byte* scales = in;
  const std::byte* codes = in + 16;
  const float scale = LoadHalf(in + 80);
  const float minimum = LoadHalf(in + 82);
  for (int group = 0; group < 16; ++group) {
    const float group_scale = scale * static_cast<float>(LowNibble(scales + group));
    const float group_minimum = minimum * static_cast<float>(HighNibble(scales + group));
    for (int i = group * 16; i < group * 16 + 16; ++i) {
      const int code = (Byte(codes + TwoBitByte(i)) >> TwoBitShift(i)) & 3;
      out[i] = group_scale * static_cast<float>(code) - group_minimum;
    }
  }
}

// 16 scales of 6 bits, offset 32: 8 bytes of low nibbles (0-7 low, 8-15 high), 4 of high pairs.
int32_t Q3KScale(const std::byte* packed, int group) {
  const int low = (Byte(packed + group % 8) >> (group / 8 * 4)) & 15;
  const int high = (Byte(packed + 8 + group % 4) >> (group / 4 * 2)) & 3;
  return (low | high << 4) - 32;
}

void DecodeQ3_K(const std::byte* in, float* out) {
  const std::byte* high_bits = in;
  const std::byte* codes = in + 32;
  const std::byte* scales = in + 96;
  const float scale = LoadHalf(in + 108);
  for (int group = 0; group < 16; ++group) {
    const float group_scale = scale * static_cast<float>(Q3KScale(scales, group));
    for (int i = group * 16; i < group * 16 + 16; ++i) {
      const int low = (Byte(codes + TwoBitByte(i)) >> TwoBitShift(i)) & 3;
      const int high = (Byte(high_bits + i % 32) >> (i / 32)) & 1;
      out[i] = group_scale * static_cast<float>((low | high << 2) - 4);
    }
  }
}

struct ScaleAndMinimum {
  int32_t scale;
  int32_t minimum;
};

// 8 pairs of 6-bit numbers in 12 bytes, of Q4_K and Q5_K. Pairs 0-3 are the low 6 bits of bytes
// 0-3 and 4-7; pairs 4-7 have their low nibbles in bytes 8-11 and their high 2 bits on top of
// those.
ScaleAndMinimum UnpackScaleAndMinimum(const std::byte* packed, int group) {
  if (group < 4) return {Byte(packed + group) & 63, Byte(packed + group + 4) & 63};
  const std::byte* low = packed + group + 4;
  return {LowNibble(low) | Byte(packed + group - 4) >> 6 << 4,
          HighNibble(low) | Byte(packed + group) >> 6 << 4};
}

void DecodeQ4_K(const std::byte* in, float* out) {
  const float scale = LoadHalf(in);
  const float minimum = LoadHalf(in + 2);
  const std::byte* codes = in + 16;
  for (int group = 0; group < 8; ++group) {
    const auto [s, m] = UnpackScaleAndMinimum(in + 4, group);
    const float group_scale = scale * static_cast<float>(s);
    const float group_minimum = minimum * static_cast<float>(m);
    for (int i = 0; i < 32; ++i) {
      const int code = (Byte(codes + group / 2 * 32 + i) >> (group % 2 * 4)) & 15;
      out[group * 32 + i] = group_scale * static_cast<float>(code) - group_minimum;
    }
  }
}

void DecodeQ5_K(const std::byte* in, float* out) {
  const float scale = LoadHalf(in);
  const float minimum = LoadHalf(in + 2);
  const std::byte* high_bits = in + 16;
  const std::byte* codes = in + 48;
  for (int group = 0; group < 8; ++group) {
    const auto [s, m] = UnpackScaleAndMinimum(in + 4, group);
    const float group_scale = scale * static_cast<float>(s);
    const float group_minimum = minimum * static_cast<float>(m);
    for (int i = 0; i < 32; ++i) {
      const int low = (Byte(codes + group / 2 * 32 + i) >> (group % 2 * 4)) & 15;
      const int high = (Byte(high_bits + i) >> group) & 1;
      out[group * 32 + i] = group_scale * static_cast<float>(low | high << 4) - group_minimum;
    }
  }
}

void DecodeQ6_K(const std::byte* in, float* out) {
  const std::byte* high_pairs = in + 128;
  const std::byte* scales = in + 192;
  const float scale = LoadHalf(in + 208);
  for (int group = 0; group < 16; ++group) {
    const float group_scale = scale * static_cast<float>(SignedByte(scales + group));
    for (int i = group * 16; i < group * 16 + 16; ++i) {
      // Each 64 bytes of nibbles hold 128 numbers: 64 in the low halves, then 64 in the high ones.
      const int low = (Byte(in + i / 128 * 64 + i % 64) >> (i % 128 / 64 * 4)) & 15;
      const int high = (Byte(high_pairs + TwoBitByte(i)) >> TwoBitShift(i)) & 3;
      out[i] = group_scale * static_cast<float>((low | high << 4) - 32);
    }
  }
}

// The 16 values that the codes of IQ4_NL and IQ4_XS stand for.
constexpr int8_t kNonLinearValues[16] = {-127, -104, -83, -65, -49, -35, -22, -10,
                                         1,    13,   25,  38,  53,  69,  89,  113};

void DecodeNonLinear32(const std::byte* codes, float scale, float* out) {
  for (int i = 0; i < 16; ++i) {
    out[i] = scale * static_cast<float>(kNonLinearValues[LowNibble(codes + i)]);
    out[i + 16] = scale * static_cast<float>(kNonLinearValues[HighNibble(codes + i)]);
  }
}

void DecodeIQ4_NL(const std::byte* in, float* out) { DecodeNonLinear32(in + 2, LoadHalf(in), out); }

void DecodeIQ4_XS(const std::byte* in, float* out) {
  const float scale = LoadHalf(in);
  const int high_pairs = Load16(in + 2);
  for (int group = 0; group < 8; ++group) {
    const int low = (Byte(in + 4 + group / 2) >> (group % 2 * 4)) & 15;
    const int high = (high_pairs >> (2 * group)) & 3;
    DecodeNonLinear32(in + 8 + group * 16, scale * static_cast<float>((low | high << 4) - 32),
                      out + group * 32);
  }
}

// Scale, third bits[4], pairs of low bits[8]. Number i belongs to group g = i / 4 of eight: its
// third bit is bit g of byte i % 4, its low bits are at 2 * (g / 2) in byte 4 * (g % 2) + i % 4.
void DecodeR3(const std::byte* in, float* out) {
  const float scale = LoadHalf(in);
  for (int i = 0; i < 32; ++i) {
    const int group = i / 4;
    const int low = (Byte(in + 6 + 4 * (group % 2) + i % 4) >> (2 * (group / 2))) & 3;
    const int high = (Byte(in + 2 + i % 4) >> group) & 1;
    out[i] = scale * static_cast<float>((low | high << 2) - 4);
  }
}

// One block's decoder, made into one for whole rows.
template <void (*kDecode)(const std::byte*, float*), int64_t kElements, int64_t kBytes>
void DecodeRow(const std::byte* blocks, float* out, int64_t n) {
  for (int64_t i = 0; i < n; i += kElements, blocks += kBytes) kDecode(blocks, out + i);
}

template <void (*kDecode)(const std::byte*, float*), int64_t kElements, int64_t kBytes>
constexpr DataTypeInfo Row(DataType type, absl::string_view name, uint32_t gguf_id) {
  return {type, name, gguf_id, kElements, kBytes, DecodeRow<kDecode, kElements, kBytes>};
}

// In the order of the enum, so that GetDataTypeInfo is an index.
constexpr uint32_t kNoGgufId = UINT32_MAX;
constexpr std::array kTable = {
    Row<DecodeF32, 1, 4>(DataType::kF32, "F32", 0),
    Row<DecodeF16, 1, 2>(DataType::kF16, "F16", 1),
    Row<DecodeBF16, 1, 2>(DataType::kBF16, "BF16", 30),
    Row<DecodeQ8_0, 32, 34>(DataType::kQ8_0, "Q8_0", 8),
    Row<DecodeQ4_0, 32, 18>(DataType::kQ4_0, "Q4_0", 2),
    Row<DecodeQ4_1, 32, 20>(DataType::kQ4_1, "Q4_1", 3),
    Row<DecodeQ5_0, 32, 22>(DataType::kQ5_0, "Q5_0", 6),
    Row<DecodeQ5_1, 32, 24>(DataType::kQ5_1, "Q5_1", 7),
    Row<DecodeQ2_K, 256, 84>(DataType::kQ2_K, "Q2_K", 10),
    Row<DecodeQ3_K, 256, 110>(DataType::kQ3_K, "Q3_K", 11),
    Row<DecodeQ4_K, 256, 144>(DataType::kQ4_K, "Q4_K", 12),
    Row<DecodeQ5_K, 256, 176>(DataType::kQ5_K, "Q5_K", 13),
    Row<DecodeQ6_K, 256, 210>(DataType::kQ6_K, "Q6_K", 14),
    Row<DecodeIQ4_NL, 32, 18>(DataType::kIQ4_NL, "IQ4_NL", 20),
    Row<DecodeIQ4_XS, 256, 136>(DataType::kIQ4_XS, "IQ4_XS", 23),
    Row<DecodeR3, 32, 14>(DataType::kR3, "R3", kNoGgufId),
};

constexpr bool FollowsEnum() {
  for (size_t i = 0; i < kTable.size(); ++i) {
    if (static_cast<size_t>(kTable[i].type) != i + 1) return false;
  }
  return kTable.size() == static_cast<size_t>(DataType::kR3);
}
static_assert(FollowsEnum());

}  // namespace

std::span<const DataTypeInfo> AllDataTypes() {
  return std::span(kTable).first<kTable.size() - 1>();
}

const DataTypeInfo& GetDataTypeInfo(DataType type) { return kTable[static_cast<size_t>(type) - 1]; }

std::optional<DataType> DataTypeFromGgufId(uint32_t gguf_id) {
  for (const DataTypeInfo& info : AllDataTypes()) {
    if (info.gguf_id == gguf_id) return info.type;
  }
  return std::nullopt;
}

std::optional<DataType> DataTypeFromName(absl::string_view name) {
  for (const DataTypeInfo& info : AllDataTypes()) {
    if (absl::EqualsIgnoreCase(info.name, name)) return info.type;
  }
  return std::nullopt;
}

absl::StatusOr<int64_t> RowBytes(DataType type, int64_t n) {
  const DataTypeInfo& info = GetDataTypeInfo(type);
  if (n < 0 || n % info.block_elements != 0) {
    return absl::InvalidArgumentError(absl::StrCat("a row of ", info.name, " has a multiple of ",
                                                   info.block_elements, " numbers, not ", n));
  }
  int64_t bytes;
  if (__builtin_mul_overflow(n / info.block_elements, info.block_bytes, &bytes)) {
    return absl::InvalidArgumentError(
        absl::StrCat("a row of ", n, " numbers of ", info.name, " is too large"));
  }
  return bytes;
}

}  // namespace renga::base

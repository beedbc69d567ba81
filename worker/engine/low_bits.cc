#include "worker/engine/low_bits.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <string>

#include "absl/strings/str_cat.h"

namespace renga::engine {
namespace {

using base::DataType;

// Where some bits of a number's code are in its block.
struct Bits {
  int64_t byte = 0;
  int shift = 0;
  int count = 0;
};

// The code of the i-th number of a block, low bits first; docs/FORMATS.md has the layouts.
struct Code {
  Bits low;
  Bits high;  // count 0: none
  int size() const { return low.count + high.count; }
};

Code Nibble(int64_t codes, int64_t i) { return {{codes + i % 16, i < 16 ? 0 : 4, 4}, {}}; }

Code WithHighBit(int64_t codes, int64_t high, int64_t i) {
  Code code = Nibble(codes, i);
  code.high = {high + i / 8, static_cast<int>(i % 8), 1};
  return code;
}

Code NibbleOf256(int64_t codes, int64_t i) {
  return {{codes + i / 64 * 32 + i % 32, static_cast<int>(i / 32 % 2 * 4), 4}, {}};
}

// Size 0: not a format of codes that can be shortened.
Code CodeOf(DataType type, int64_t i) {
  switch (type) {
    case DataType::kQ8_0:
      return {{2 + i, 0, 8}, {}};
    case DataType::kQ4_0:
      return Nibble(2, i);
    case DataType::kQ4_1:
      return Nibble(4, i);
    case DataType::kQ5_0:
      return WithHighBit(6, 2, i);
    case DataType::kQ5_1:
      return WithHighBit(8, 4, i);
    case DataType::kQ4_K:
      return NibbleOf256(16, i);
    case DataType::kQ5_K: {
      Code code = NibbleOf256(48, i);
      code.high = {16 + i % 32, static_cast<int>(i / 32), 1};
      return code;
    }
    case DataType::kQ6_K:
      return {{i / 128 * 64 + i % 64, static_cast<int>(i % 128 / 64 * 4), 4},
              {128 + i / 128 * 32 + i % 32, static_cast<int>(i % 128 / 32 * 2), 2}};
    case DataType::kInvalid:
    case DataType::kF32:
    case DataType::kF16:
    case DataType::kBF16:
    case DataType::kQ2_K:
    case DataType::kQ3_K:
    case DataType::kIQ4_NL:
    case DataType::kIQ4_XS:
      return {};
  }
  return {};
}

int Get(const std::byte* block, const Bits& bits) {
  return std::to_integer<int>(block[bits.byte]) >> bits.shift & ((1 << bits.count) - 1);
}

void Set(std::byte* block, const Bits& bits, int value) {
  const int mask = ((1 << bits.count) - 1) << bits.shift;
  const int kept = std::to_integer<int>(block[bits.byte]) & ~mask;
  block[bits.byte] = static_cast<std::byte>(kept | (value << bits.shift & mask));
}

// To the nearest multiple of what three bits leave, halves to the even one.
int RoundCode(int code, int size) {
  const int step = 1 << (size - 3);
  const auto rounded = static_cast<int>(std::nearbyint(static_cast<double>(code) / step));
  return std::min(rounded, 7) * step;
}

void RoundNumber(std::byte* block, const Code& code) {
  if (code.size() == 8) {
    // Of Q8_0, with a sign and 127 for the largest: seven values that are even on both sides.
    constexpr int kStep = 42;
    const auto number = static_cast<int8_t>(Get(block, code.low));
    const auto rounded = static_cast<int>(std::nearbyint(static_cast<double>(number) / kStep));
    return Set(block, code.low, std::clamp(rounded, -3, 3) * kStep);
  }
  int all = Get(block, code.low);
  if (code.high.count > 0) all |= Get(block, code.high) << code.low.count;
  all = RoundCode(all, code.size());
  Set(block, code.low, all);
  if (code.high.count > 0) Set(block, code.high, all >> code.low.count);
}

void RoundCodes(DataType type, std::span<std::byte> row, std::span<const int32_t> cold) {
  const base::DataTypeInfo& info = base::GetDataTypeInfo(type);
  for (const int32_t column : cold) {
    std::byte* const block = row.data() + column / info.block_elements * info.block_bytes;
    RoundNumber(block, CodeOf(type, column % info.block_elements));
  }
}

void Store(DataType type, float number, std::byte* at) {
  if (type == DataType::kF32) {
    std::memcpy(at, &number, sizeof(number));
    return;
  }
  const uint16_t half =
      type == DataType::kF16 ? base::FloatToHalf(number) : base::FloatToBFloat16(number);
  std::memcpy(at, &half, sizeof(half));
}

void RoundPlain(DataType type, std::span<std::byte> row, std::span<const int32_t> cold) {
  constexpr int32_t kColumns = 32;
  const base::DataTypeInfo& info = base::GetDataTypeInfo(type);
  const auto at = [&](int32_t column) { return row.data() + column * info.block_bytes; };
  for (size_t first = 0; first < cold.size();) {
    size_t end = first;
    float most = 0;
    for (; end < cold.size() && cold[end] / kColumns == cold[first] / kColumns; ++end) {
      float number = 0;
      info.to_float(at(cold[end]), &number, 1);
      most = std::max(most, std::abs(number));
    }
    const float step = most / 3;
    for (; first < end; ++first) {
      float number = 0;
      info.to_float(at(cold[first]), &number, 1);
      if (step > 0) Store(type, std::nearbyint(number / step) * step, at(cold[first]));
    }
  }
}

}  // namespace

absl::Status RoundToThreeBits(DataType type, std::span<std::byte> row,
                              std::span<const int32_t> cold) {
  switch (type) {
    case DataType::kF32:
    case DataType::kF16:
    case DataType::kBF16:
      RoundPlain(type, row, cold);
      return absl::OkStatus();
    case DataType::kQ2_K:
    case DataType::kQ3_K:
      return absl::OkStatus();
    case DataType::kInvalid:
    case DataType::kIQ4_NL:
    case DataType::kIQ4_XS:
      return absl::UnimplementedError(
          absl::StrCat("cold neurons can't be rounded to 3 bits in ",
                       std::string(type == DataType::kInvalid ? "an unknown format"
                                                              : base::GetDataTypeInfo(type).name),
                       ", whose codes are no numbers: use a file in Q8_0 or Q4_K"));
    default:
      RoundCodes(type, row, cold);
      return absl::OkStatus();
  }
}

}  // namespace renga::engine

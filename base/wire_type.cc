#include "base/wire_type.h"

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>

namespace renga::base {
namespace {

constexpr float kLargestHalf = 65504.0F;
constexpr float kLargestCode = 127.0F;
constexpr int64_t kQ8Elements = 32;
constexpr int64_t kQ8Bytes = 34;

// Numbers that are too large stay finite: an infinity in a residual stream makes every logit NaN.
uint16_t ToFiniteHalf(float number) {
  return FloatToHalf(std::isfinite(number) ? std::clamp(number, -kLargestHalf, kLargestHalf)
                                           : number);
}

void EncodeF16(std::span<const float> numbers, std::byte* out) {
  for (const float number : numbers) {
    const uint16_t half = ToFiniteHalf(number);
    std::memcpy(out, &half, sizeof(half));
    out += sizeof(half);
  }
}

void EncodeQ8Block(const float* numbers, std::byte* out) {
  float peak = 0;
  bool finite = true;
  for (int64_t i = 0; i < kQ8Elements; ++i) {
    finite = finite && std::isfinite(numbers[i]);
    peak = std::max(peak, std::fabs(numbers[i]));
  }
  const uint16_t half = finite ? ToFiniteHalf(peak / kLargestCode) : FloatToHalf(std::nanf(""));
  std::memcpy(out, &half, sizeof(half));
  // Rounded to a half before it divides, so that code * scale is what was meant.
  const float scale = HalfToFloat(half);
  for (int64_t i = 0; i < kQ8Elements; ++i) {
    float code = 0;
    if (finite && scale > 0) {
      code = std::nearbyint(std::clamp(numbers[i] / scale, -kLargestCode, kLargestCode));
    }
    out[sizeof(half) + i] = static_cast<std::byte>(static_cast<int8_t>(code));
  }
}

}  // namespace

void EncodeForWire(DataType type, std::span<const float> numbers, std::span<std::byte> out) {
  if (type == DataType::kF16) return EncodeF16(numbers, out.data());
  if (type == DataType::kF32) {
    if (!numbers.empty()) std::memcpy(out.data(), numbers.data(), numbers.size_bytes());
    return;
  }
  const auto blocks = static_cast<int64_t>(numbers.size()) / kQ8Elements;
  for (int64_t block = 0; block < blocks; ++block) {
    EncodeQ8Block(numbers.data() + block * kQ8Elements, out.data() + block * kQ8Bytes);
  }
}

}  // namespace renga::base

#include "worker/engine/three_bits.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdint>
#include <cstring>

#include "base/half_float.h"

namespace renga::engine {
namespace {

constexpr size_t kNumbers = 32;
constexpr size_t kBytes = 14;
constexpr int kOffset = 4;  // codes 0 to 7 stand for -4 to 3

struct Coded {
  uint16_t scale = 0;  // a half
  std::array<int, kNumbers> steps{};
  double error = 0;
};

Coded WithScale(std::span<const float> numbers, float scale) {
  Coded coded;
  coded.scale = base::FloatToHalf(scale);
  const float exact = base::HalfToFloat(coded.scale);
  const float units = exact == 0 ? 0 : 1 / exact;
  for (size_t i = 0; i < kNumbers; ++i) {
    const float steps = std::clamp(std::nearbyint(numbers[i] * units), -4.0F, 3.0F);
    coded.steps[i] = static_cast<int>(steps);
    const double off = numbers[i] - static_cast<double>(steps) * exact;
    coded.error += off * off;
  }
  return coded;
}

// The scale with the least squared error for steps as they are.
float Refitted(std::span<const float> numbers, const Coded& coded) {
  double products = 0;
  double squares = 0;
  for (size_t i = 0; i < kNumbers; ++i) {
    products += static_cast<double>(numbers[i]) * coded.steps[i];
    squares += static_cast<double>(coded.steps[i]) * coded.steps[i];
  }
  return squares == 0 ? 0 : static_cast<float>(products / squares);
}

Coded Best(std::span<const float> numbers) {
  // How many steps the largest number is.
  constexpr float kStepsTried[] = {3, 3.5F, 4.2F};
  float largest = 0;
  bool finite = true;
  for (const float number : numbers) {
    finite = finite && std::isfinite(number);
    largest = std::max(largest, std::abs(number));
  }
  constexpr float kLargestHalf = 65504;
  Coded best = WithScale(numbers, 0);
  if (!finite || largest > kLargestHalf || largest == 0) return Coded{};
  for (const float steps : kStepsTried) {
    // Four steps on one side, three on the other.
    for (const float scale : {largest / steps, -largest / steps}) {
      Coded coded = WithScale(numbers, scale);
      const Coded fitted = WithScale(numbers, Refitted(numbers, coded));
      if (fitted.error < coded.error) coded = fitted;
      if (coded.error < best.error) best = coded;
    }
  }
  return best;
}

}  // namespace

void StoreThreeBits(std::span<const float> numbers, std::span<std::byte> out) {
  for (; !numbers.empty(); numbers = numbers.subspan(kNumbers), out = out.subspan(kBytes)) {
    const Coded coded = Best(numbers.first(kNumbers));
    std::array<uint8_t, kBytes> block{};
    std::memcpy(block.data(), &coded.scale, sizeof(coded.scale));
    for (size_t i = 0; i < kNumbers; ++i) {
      // Where a number's bits are: docs/FORMATS.md.
      const auto code = static_cast<unsigned>(coded.steps[i] + kOffset);
      const size_t group = i / 4;
      block[2 + i % 4] |= static_cast<uint8_t>((code >> 2) << group);
      block[6 + 4 * (group % 2) + i % 4] |= static_cast<uint8_t>((code & 3) << (2 * (group / 2)));
    }
    std::memcpy(out.data(), block.data(), kBytes);
  }
}

}  // namespace renga::engine

// IEEE half and bfloat16, one number at a time, in integer arithmetic: the same bits on machines
// with and without conversion instructions. Rounding is to nearest even; NaN stays NaN.
#ifndef RENGA_BASE_HALF_FLOAT_H_
#define RENGA_BASE_HALF_FLOAT_H_

#include <bit>
#include <cstdint>

namespace renga::base {

inline float HalfToFloat(uint16_t half) {
  const uint32_t sign = static_cast<uint32_t>(half & 0x8000u) << 16;
  const uint32_t magnitude = half & 0x7fffu;
  uint32_t bits;
  if (magnitude >= 0x7c00u) {  // infinity and NaN
    bits = (magnitude << 13) | 0x7f800000u;
  } else if (magnitude >= 0x0400u) {
    bits = (magnitude << 13) + (112u << 23);  // exponent bias 15 to 127
  } else {                                    // zero and subnormals count in units of 2^-24
    bits = std::bit_cast<uint32_t>(static_cast<float>(magnitude) * 0x1p-24f);
  }
  return std::bit_cast<float>(sign | bits);
}

inline uint16_t FloatToHalf(float value) {
  const uint32_t bits = std::bit_cast<uint32_t>(value);
  const uint32_t sign = (bits >> 16) & 0x8000u;
  const uint32_t magnitude = bits & 0x7fffffffu;
  uint32_t half;
  if (magnitude > 0x7f800000u) {
    half = 0x7e00u | ((magnitude >> 13) & 0x3ffu);  // a quiet NaN
  } else if (magnitude >= 0x477ff000u) {            // 65520 and above round to infinity
    half = 0x7c00u;
  } else if (magnitude >= 0x38800000u) {  // at least 2^-14: normal
    half = (magnitude - (112u << 23) + 0xfffu + ((magnitude >> 13) & 1u)) >> 13;
  } else {
    // The units of a half subnormal, 2^-24, are those of floats in [0.5, 1): the addition rounds.
    const float shifted = std::bit_cast<float>(magnitude) + 0.5f;
    half = std::bit_cast<uint32_t>(shifted) - std::bit_cast<uint32_t>(0.5f);
  }
  return static_cast<uint16_t>(sign | half);
}

inline float BFloat16ToFloat(uint16_t bits) {
  return std::bit_cast<float>(static_cast<uint32_t>(bits) << 16);
}

inline uint16_t FloatToBFloat16(float value) {
  const uint32_t bits = std::bit_cast<uint32_t>(value);
  if ((bits & 0x7fffffffu) > 0x7f800000u) return static_cast<uint16_t>((bits >> 16) | 0x40u);
  return static_cast<uint16_t>((bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16);
}

}  // namespace renga::base

#endif  // RENGA_BASE_HALF_FLOAT_H_

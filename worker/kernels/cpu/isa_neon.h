// The vector words of NEON as every 64-bit ARM processor has it (ARMv8.0: Cortex-A53, A72): 8 lanes
// as two halves. isa_generic.h says what each word means. Dot products of bytes are signed times
// signed, which holds every format's codes as they are.
#ifndef RENGA_WORKER_KERNELS_CPU_ISA_NEON_H_
#define RENGA_WORKER_KERNELS_CPU_ISA_NEON_H_

#include <arm_neon.h>

#include <cstddef>
#include <cstdint>
#include <cstring>

#include "worker/kernels/cpu/unroll.h"

namespace renga::kernels::cpu {

struct Neon {
  // Of 32 registers, a tile of 4 tokens and 2 panels takes 16 for sums and 4 for codes.
  static constexpr int kLanes = 8;
  static constexpr bool kDot32 = true;
  static constexpr bool kWideSigned = false;
  static constexpr bool kSignedDot = true;
  static constexpr bool kWordScales = false;
  static constexpr bool kTokenPairs = false;
  static constexpr int kTileTokens = 4;
  static constexpr bool kSharesCodes = true;
  static constexpr int kStreams = 4;
  static constexpr int kStreams256 = 4;
  static constexpr int kPrefetchBytes = 1024;
  static constexpr int kPrefetchBytes256 = 2048;
  static constexpr int kPrefetchLevel = 3;
  static constexpr bool kStepByStep = false;
  static constexpr int kAttentionHeads = 2;
  struct F {
    float32x4_t low, high;
  };
  struct I {
    int32x4_t low, high;
  };

  // Integers.
  RENGA_WORD I Load(const void* p) {
    const auto* bytes = static_cast<const int8_t*>(p);
    return FromBytes(vld1q_s8(bytes), vld1q_s8(bytes + 16));
  }
  RENGA_WORD I Once(I v) { return v; }
  RENGA_WORD void Store(void* p, I v) {
    auto* bytes = static_cast<int8_t*>(p);
    vst1q_s8(bytes, Bytes(v.low));
    vst1q_s8(bytes + 16, Bytes(v.high));
  }
  RENGA_WORD I ZeroI() { return SetI(0); }
  RENGA_WORD I SetByte(int8_t x) { return FromBytes(vdupq_n_s8(x), vdupq_n_s8(x)); }
  RENGA_WORD I SetI(int32_t x) { return {vdupq_n_s32(x), vdupq_n_s32(x)}; }
  RENGA_WORD I Broadcast4(const void* p) {
    int32_t x;
    std::memcpy(&x, p, sizeof(x));
    return SetI(x);
  }
  RENGA_WORD I And(I a, I b) { return {vandq_s32(a.low, b.low), vandq_s32(a.high, b.high)}; }
  RENGA_WORD I Or(I a, I b) { return {vorrq_s32(a.low, b.low), vorrq_s32(a.high, b.high)}; }
  RENGA_WORD I OrMasked(I a, I b, I mask) { return Or(a, And(b, mask)); }
  RENGA_WORD I Xor(I a, I b) { return {veorq_s32(a.low, b.low), veorq_s32(a.high, b.high)}; }
  RENGA_WORD I SubByte(I a, I b) {
    return FromBytes(vsubq_s8(Bytes(a.low), Bytes(b.low)), vsubq_s8(Bytes(a.high), Bytes(b.high)));
  }
  RENGA_WORD I AddI(I a, I b) { return {vaddq_s32(a.low, b.low), vaddq_s32(a.high, b.high)}; }
  RENGA_WORD I SubI(I a, I b) { return {vsubq_s32(a.low, b.low), vsubq_s32(a.high, b.high)}; }
  template <int kBits>
  RENGA_WORD I ShiftLeft(I a) {
    return {vshlq_n_s32(a.low, kBits), vshlq_n_s32(a.high, kBits)};
  }
  template <int kBits>
  RENGA_WORD I ShiftRight(I a) {
    if constexpr (kBits == 0) {
      return a;  // which the instruction cannot say
    } else {
      return {ShiftRightHalf<kBits>(a.low), ShiftRightHalf<kBits>(a.high)};
    }
  }
  RENGA_WORD I WidenU16(const void* p) {
    const uint16x8_t v = vreinterpretq_u16_u8(vld1q_u8(static_cast<const uint8_t*>(p)));
    return {vreinterpretq_s32_u32(vmovl_u16(vget_low_u16(v))),
            vreinterpretq_s32_u32(vmovl_high_u16(v))};
  }
  RENGA_WORD I WidenS8(const void* p) {
    const int16x8_t v = vmovl_s8(vld1_s8(static_cast<const int8_t*>(p)));
    return {vmovl_s16(vget_low_s16(v)), vmovl_high_s16(v)};
  }
  RENGA_WORD I LoadTable(const int8_t* table) {
    return FromBytes(vld1q_s8(table), vld1q_s8(table));
  }
  RENGA_WORD I Lookup(I table, I index) {
    return FromBytes(vqtbl1q_s8(Bytes(table.low), UBytes(index.low)),
                     vqtbl1q_s8(Bytes(table.high), UBytes(index.high)));
  }

  // Dot products. A partial sum is int32 already.
  RENGA_WORD I DotBytes(I acc, I codes, I activations) {
    return InOrder({DotHalf(acc.low, Bytes(codes.low), Bytes(activations.low)),
                    DotHalf(acc.high, Bytes(codes.high), Bytes(activations.high))});
  }
  RENGA_WORD I SumDot(I partial) { return partial; }
  RENGA_WORD I ScaleDot(I acc, I partial, I scale) { return MulI(acc, partial, scale); }
  RENGA_WORD I MulPairs(I acc, I a, I b) {
    return {vaddq_s32(acc.low, PairsHalf(Words(a.low), Words(b.low))),
            vaddq_s32(acc.high, PairsHalf(Words(a.high), Words(b.high)))};
  }
  RENGA_WORD I MulI(I acc, I a, I b) {
    return {vmlaq_s32(acc.low, a.low, b.low), vmlaq_s32(acc.high, a.high, b.high)};
  }
  template <int kByte>
  RENGA_WORD I DotScaleU(I bytes) {
    return And(ShiftRight<8 * kByte>(bytes), SetI(0xff));
  }
  template <int kByte>
  RENGA_WORD I DotScaleS(I bytes) {
    return ScaleS<kByte>(bytes);
  }
  template <int kByte>
  RENGA_WORD I ScaleS(I bytes) {
    const I left = ShiftLeft<24 - 8 * kByte>(bytes);
    return {vshrq_n_s32(left.low, 24), vshrq_n_s32(left.high, 24)};
  }
  template <int kPair>
  RENGA_WORD I PairU(I bytes) {
    const I x = ShiftRight<16 * kPair>(bytes);
    return Or(And(x, SetI(0xff)), And(ShiftLeft<8>(x), SetI(0xff0000)));
  }
  template <int kPair>
  RENGA_WORD I PairS(I bytes) {
    // Each byte to the top of its word, then down with its sign.
    const I x = ShiftRight<16 * kPair>(bytes);
    const I top = Or(And(ShiftLeft<8>(x), SetI(0xff00)), ShiftLeft<16>(And(x, SetI(0xff00))));
    return {vreinterpretq_s32_s16(vshrq_n_s16(Words(top.low), 8)),
            vreinterpretq_s32_s16(vshrq_n_s16(Words(top.high), 8))};
  }

  // Floats.
  RENGA_WORD F ZeroF() { return SetF(0.0f); }
  RENGA_WORD F SetF(float x) { return {vdupq_n_f32(x), vdupq_n_f32(x)}; }
  RENGA_WORD F LoadF(const float* p) { return {vld1q_f32(p), vld1q_f32(p + 4)}; }
  RENGA_WORD void StoreF(float* p, F v) {
    vst1q_f32(p, v.low);
    vst1q_f32(p + 4, v.high);
  }
  RENGA_WORD F AddF(F a, F b) { return {vaddq_f32(a.low, b.low), vaddq_f32(a.high, b.high)}; }
  RENGA_WORD F SubF(F a, F b) { return {vsubq_f32(a.low, b.low), vsubq_f32(a.high, b.high)}; }
  RENGA_WORD F MulF(F a, F b) { return {vmulq_f32(a.low, b.low), vmulq_f32(a.high, b.high)}; }
  RENGA_WORD F DivF(F a, F b) { return {vdivq_f32(a.low, b.low), vdivq_f32(a.high, b.high)}; }
  // NaN, as either operand, stays.
  RENGA_WORD F MinF(F a, F b) { return {vminq_f32(a.low, b.low), vminq_f32(a.high, b.high)}; }
  RENGA_WORD F MaxF(F a, F b) { return {vmaxq_f32(a.low, b.low), vmaxq_f32(a.high, b.high)}; }
  RENGA_WORD F AbsF(F a) { return {vabsq_f32(a.low), vabsq_f32(a.high)}; }
  RENGA_WORD F MulAddF(F a, F b, F c) {
    return {vfmaq_f32(c.low, a.low, b.low), vfmaq_f32(c.high, a.high, b.high)};
  }
  RENGA_WORD F ToF(I v) { return {vcvtq_f32_s32(v.low), vcvtq_f32_s32(v.high)}; }
  RENGA_WORD F KeepWhereAtLeast(F v, F x, F limit) {
    const I mask = {vreinterpretq_s32_u32(vcgeq_f32(x.low, limit.low)),
                    vreinterpretq_s32_u32(vcgeq_f32(x.high, limit.high))};
    return AsF(And(AsI(v), mask));
  }
  RENGA_WORD I Round(F v) { return {vcvtnq_s32_f32(v.low), vcvtnq_s32_f32(v.high)}; }
  RENGA_WORD F AsF(I v) { return {vreinterpretq_f32_s32(v.low), vreinterpretq_f32_s32(v.high)}; }
  RENGA_WORD F LoadHalf(const void* p) {
    const float16x8_t v = vreinterpretq_f16_u8(vld1q_u8(static_cast<const uint8_t*>(p)));
    return {vcvt_f32_f16(vget_low_f16(v)), vcvt_high_f32_f16(v)};
  }
  RENGA_WORD void StoreHalf(void* p, F v) {
    const float16x8_t halves = vcvt_high_f16_f32(vcvt_f16_f32(v.low), v.high);
    vst1q_u8(static_cast<uint8_t*>(p), vreinterpretq_u8_f16(halves));
  }
  RENGA_WORD float SumF(F v) {
    const float32x4_t x = vaddq_f32(v.low, v.high);
    const float32x2_t y = vadd_f32(vget_low_f32(x), vget_high_f32(x));
    return vget_lane_f32(y, 0) + vget_lane_f32(y, 1);
  }
  RENGA_WORD float LargestF(F v) { return vmaxvq_f32(vmaxq_f32(v.low, v.high)); }
  RENGA_WORD void StoreBytes(int8_t* p, I v) {
    vst1_s8(p, vmovn_s16(vcombine_s16(vmovn_s32(v.low), vmovn_s32(v.high))));
  }

 private:
  RENGA_WORD int8x16_t Bytes(int32x4_t v) { return vreinterpretq_s8_s32(v); }
  RENGA_WORD uint8x16_t UBytes(int32x4_t v) { return vreinterpretq_u8_s32(v); }
  RENGA_WORD int16x8_t Words(int32x4_t v) { return vreinterpretq_s16_s32(v); }
  RENGA_WORD I FromBytes(int8x16_t low, int8x16_t high) {
    return {vreinterpretq_s32_s8(low), vreinterpretq_s32_s8(high)};
  }
  RENGA_WORD I AsI(F v) { return {vreinterpretq_s32_f32(v.low), vreinterpretq_s32_f32(v.high)}; }
  template <int kBits>
  RENGA_WORD int32x4_t ShiftRightHalf(int32x4_t v) {
    return vreinterpretq_s32_u32(vshrq_n_u32(vreinterpretq_u32_s32(v), kBits));
  }
  // Two products fit int16, since activations are never -128, and make a lane's first or second
  // half.
  RENGA_WORD int32x4_t DotHalf(int32x4_t acc, int8x16_t a, int8x16_t b) {
    const int16x8_t first = vmull_s8(vget_low_s8(a), vget_low_s8(b));
    const int16x8_t second = vmull_high_s8(a, b);
    return vpadalq_s16(acc, vpaddq_s16(first, second));
  }
  RENGA_WORD int32x4_t PairsHalf(int16x8_t a, int16x8_t b) {
    return vpaddq_s32(vmull_s16(vget_low_s16(a), vget_low_s16(b)), vmull_high_s16(a, b));
  }
  // Keeps an addition where it is written, as isa_avx2.h's.
  RENGA_WORD I InOrder(I v) {
    asm("" : "+w"(v.low), "+w"(v.high));
    return v;
  }
};

}  // namespace renga::kernels::cpu

#endif  // RENGA_WORKER_KERNELS_CPU_ISA_NEON_H_

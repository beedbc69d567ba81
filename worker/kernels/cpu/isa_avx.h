// The vector words of AVX without FMA, F16C or AVX2: 8 lanes, integers as two SSSE3 halves.
// isa_generic.h says what each word means.
// Include from translation units compiled with -mavx alone.
#ifndef RENGA_WORKER_KERNELS_CPU_ISA_AVX_H_
#define RENGA_WORKER_KERNELS_CPU_ISA_AVX_H_

#include <immintrin.h>

#include <cstddef>
#include <cstdint>
#include <cstring>

#include "worker/kernels/cpu/unroll.h"

namespace renga::kernels::cpu {

struct Avx {
  static constexpr int kLanes = 8;
  static constexpr bool kDot32 = false;
  static constexpr bool kWideSigned = true;
  static constexpr int kTileTokens = 2;
  using F = __m256;
  struct I {
    __m128i low, high;
  };

  // Integers.
  RENGA_WORD I Load(const void* p) {
    const auto* v = static_cast<const __m128i*>(p);
    return {_mm_loadu_si128(v), _mm_loadu_si128(v + 1)};
  }
  RENGA_WORD void Store(void* p, I v) {
    auto* to = static_cast<__m128i*>(p);
    _mm_storeu_si128(to, v.low);
    _mm_storeu_si128(to + 1, v.high);
  }
  RENGA_WORD I ZeroI() { return Both(_mm_setzero_si128()); }
  RENGA_WORD I SetByte(int8_t x) { return Both(_mm_set1_epi8(x)); }
  RENGA_WORD I SetI(int32_t x) { return Both(_mm_set1_epi32(x)); }
  RENGA_WORD I Broadcast4(const void* p) {
    int32_t x;
    std::memcpy(&x, p, sizeof(x));
    return SetI(x);
  }
  RENGA_WORD I And(I a, I b) {
    return {_mm_and_si128(a.low, b.low), _mm_and_si128(a.high, b.high)};
  }
  RENGA_WORD I Or(I a, I b) { return {_mm_or_si128(a.low, b.low), _mm_or_si128(a.high, b.high)}; }
  RENGA_WORD I Xor(I a, I b) {
    return {_mm_xor_si128(a.low, b.low), _mm_xor_si128(a.high, b.high)};
  }
  RENGA_WORD I SubByte(I a, I b) {
    return {_mm_sub_epi8(a.low, b.low), _mm_sub_epi8(a.high, b.high)};
  }
  RENGA_WORD I AddI(I a, I b) {
    return {_mm_add_epi32(a.low, b.low), _mm_add_epi32(a.high, b.high)};
  }
  RENGA_WORD I SubI(I a, I b) {
    return {_mm_sub_epi32(a.low, b.low), _mm_sub_epi32(a.high, b.high)};
  }
  template <int kBits>
  RENGA_WORD I ShiftLeft(I a) {
    return {_mm_slli_epi32(a.low, kBits), _mm_slli_epi32(a.high, kBits)};
  }
  template <int kBits>
  RENGA_WORD I ShiftRight(I a) {
    return {_mm_srli_epi32(a.low, kBits), _mm_srli_epi32(a.high, kBits)};
  }
  RENGA_WORD I WidenU16(const void* p) {
    const __m128i v = _mm_loadu_si128(static_cast<const __m128i*>(p));
    return {_mm_unpacklo_epi16(v, _mm_setzero_si128()), _mm_unpackhi_epi16(v, _mm_setzero_si128())};
  }
  RENGA_WORD I LoadTable(const int8_t* table) {
    return Both(_mm_loadu_si128(reinterpret_cast<const __m128i*>(table)));
  }
  RENGA_WORD I Lookup(I table, I index) {
    return {_mm_shuffle_epi8(table.low, index.low), _mm_shuffle_epi8(table.high, index.high)};
  }

  // Dot products.
  RENGA_WORD I DotBytes(I acc, I codes, I activations) {
    return InOrder({_mm_add_epi16(acc.low, _mm_maddubs_epi16(codes.low, activations.low)),
                    _mm_add_epi16(acc.high, _mm_maddubs_epi16(codes.high, activations.high))});
  }
  RENGA_WORD I SumDot(I partial) { return MulPairs(ZeroI(), partial, Both(_mm_set1_epi16(1))); }
  RENGA_WORD I ScaleDot(I acc, I partial, I scale) { return MulPairs(acc, partial, scale); }
  RENGA_WORD I MulPairs(I acc, I a, I b) {
    return {_mm_add_epi32(acc.low, _mm_madd_epi16(a.low, b.low)),
            _mm_add_epi32(acc.high, _mm_madd_epi16(a.high, b.high))};
  }
  RENGA_WORD I MulBytePairs(I acc, I a, I b) { return InOrder(MulPairs(acc, a, b)); }
  RENGA_WORD I MulI(I acc, I a, I b) {
    return {_mm_add_epi32(acc.low, _mm_mullo_epi32(a.low, b.low)),
            _mm_add_epi32(acc.high, _mm_mullo_epi32(a.high, b.high))};
  }
  RENGA_WORD I EvenWords(I v) {
    return {_mm_srai_epi16(_mm_slli_epi16(v.low, 8), 8),
            _mm_srai_epi16(_mm_slli_epi16(v.high, 8), 8)};
  }
  RENGA_WORD I OddWords(I v) { return {_mm_srai_epi16(v.low, 8), _mm_srai_epi16(v.high, 8)}; }
  template <int kByte>
  RENGA_WORD I DotScaleU(I bytes) {
    return Shuffle(bytes, Pattern(kByte, 0x80, kByte, 0x80));
  }
  template <int kByte>
  RENGA_WORD I DotScaleS(I bytes) {
    return OddWords(Shuffle(bytes, Pattern(0x80, kByte, 0x80, kByte)));
  }
  template <int kByte>
  RENGA_WORD I ScaleS(I bytes) {
    const I left = ShiftLeft<24 - 8 * kByte>(bytes);
    return {_mm_srai_epi32(left.low, 24), _mm_srai_epi32(left.high, 24)};
  }
  template <int kPair>
  RENGA_WORD I PairU(I bytes) {
    return Shuffle(bytes, Pattern(2 * kPair, 0x80, 2 * kPair + 1, 0x80));
  }
  template <int kPair>
  RENGA_WORD I PairS(I bytes) {
    return OddWords(Shuffle(bytes, Pattern(0x80, 2 * kPair, 0x80, 2 * kPair + 1)));
  }

  // Floats.
  RENGA_WORD F ZeroF() { return _mm256_setzero_ps(); }
  RENGA_WORD F SetF(float x) { return _mm256_set1_ps(x); }
  RENGA_WORD F LoadF(const float* p) { return _mm256_loadu_ps(p); }
  RENGA_WORD void StoreF(float* p, F v) { _mm256_storeu_ps(p, v); }
  RENGA_WORD F AddF(F a, F b) { return _mm256_add_ps(a, b); }
  RENGA_WORD F SubF(F a, F b) { return _mm256_sub_ps(a, b); }
  RENGA_WORD F MulF(F a, F b) { return _mm256_mul_ps(a, b); }
  RENGA_WORD F DivF(F a, F b) { return _mm256_div_ps(a, b); }
  RENGA_WORD F MinF(F a, F b) { return _mm256_min_ps(a, b); }
  RENGA_WORD F MaxF(F a, F b) { return _mm256_max_ps(a, b); }
  RENGA_WORD F AbsF(F a) { return _mm256_andnot_ps(_mm256_set1_ps(-0.0f), a); }
  RENGA_WORD F MulAddF(F a, F b, F c) { return _mm256_add_ps(_mm256_mul_ps(a, b), c); }
  RENGA_WORD F ToF(I v) { return _mm256_cvtepi32_ps(Join(v)); }
  RENGA_WORD F KeepWhereAtLeast(F v, F x, F limit) {
    return _mm256_and_ps(v, _mm256_cmp_ps(x, limit, _CMP_GE_OQ));
  }
  RENGA_WORD I Round(F v) { return Split(_mm256_cvtps_epi32(v)); }
  RENGA_WORD F AsF(I v) { return _mm256_castsi256_ps(Join(v)); }
  // The bits in float's place, times 2^112; infinity and NaN get float's exponent.
  RENGA_WORD F LoadHalf(const void* p) {
    const I bits = WidenU16(p);
    const I magnitude = And(bits, SetI(0x7fff));
    const F scaled = MulF(AsF(ShiftLeft<13>(magnitude)), AsF(SetI(0x77800000)));
    const I special = And(Greater(magnitude, 0x7bff), SetI(0x7f800000));
    const I sign = ShiftLeft<16>(And(bits, SetI(0x8000)));
    return _mm256_or_ps(scaled, AsF(Or(special, sign)));
  }
  // To the nearest half, ties to even, beyond 65504 infinity.
  RENGA_WORD void StoreHalf(void* p, F v) {
    const I bits = AsI(v);
    const I magnitude = And(bits, SetI(0x7fffffff));
    const I odd = And(ShiftRight<13>(magnitude), SetI(1));
    const I normal = ShiftRight<13>(AddI(AddI(magnitude, SetI(0xfff - (112 << 23))), odd));
    // Subnormal halves count in the units of floats in [0.5, 1): the addition rounds.
    const I tiny = SubI(AsI(AddF(AsF(magnitude), SetF(0.5f))), SetI(0x3f000000));
    const I nan = Or(And(ShiftRight<13>(magnitude), SetI(0x3ff)), SetI(0x7e00));
    I half = Choose(Greater(magnitude, 0x387fffff), normal, tiny);
    half = Choose(Greater(magnitude, 0x477fefff), SetI(0x7c00), half);
    half = Choose(Greater(magnitude, 0x7f800000), nan, half);
    half = Or(half, And(ShiftRight<16>(bits), SetI(0x8000)));
    _mm_storeu_si128(static_cast<__m128i*>(p), _mm_packus_epi32(half.low, half.high));
  }
  RENGA_WORD float SumF(F v) {
    __m128 x = _mm_add_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
    x = _mm_add_ps(x, _mm_movehl_ps(x, x));
    return _mm_cvtss_f32(_mm_add_ss(x, _mm_movehdup_ps(x)));
  }
  RENGA_WORD float LargestF(F v) {
    __m128 x = _mm_max_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
    x = _mm_max_ps(x, _mm_movehl_ps(x, x));
    return _mm_cvtss_f32(_mm_max_ss(x, _mm_movehdup_ps(x)));
  }
  RENGA_WORD void StoreBytes(int8_t* p, I v) {
    const __m128i words = _mm_packs_epi32(v.low, v.high);
    _mm_storel_epi64(reinterpret_cast<__m128i*>(p), _mm_packs_epi16(words, words));
  }

 private:
  // As in isa_avx2.h.
  RENGA_WORD I InOrder(I v) {
    asm("" : "+x"(v.low), "+x"(v.high));
    return v;
  }
  RENGA_WORD I Both(__m128i v) { return {v, v}; }
  RENGA_WORD __m256i Join(I v) {
    return _mm256_insertf128_si256(_mm256_castsi128_si256(v.low), v.high, 1);
  }
  RENGA_WORD I Split(__m256i v) {
    return {_mm256_castsi256_si128(v), _mm256_extractf128_si256(v, 1)};
  }
  RENGA_WORD I AsI(F v) { return Split(_mm256_castps_si256(v)); }
  RENGA_WORD I Greater(I v, int32_t limit) {
    const __m128i x = _mm_set1_epi32(limit);
    return {_mm_cmpgt_epi32(v.low, x), _mm_cmpgt_epi32(v.high, x)};
  }
  RENGA_WORD I Choose(I mask, I yes, I no) {
    return {_mm_blendv_epi8(no.low, yes.low, mask.low),
            _mm_blendv_epi8(no.high, yes.high, mask.high)};
  }
  static constexpr uint32_t Pattern(uint32_t b0, uint32_t b1, uint32_t b2, uint32_t b3) {
    return b0 | b1 << 8 | b2 << 16 | b3 << 24;
  }
  // Applies one lane's byte pattern to every lane; 0x80 gives a zero byte.
  RENGA_WORD I Shuffle(I v, uint32_t pattern) {
    const __m128i all = _mm_add_epi8(_mm_set1_epi32(static_cast<int32_t>(pattern)),
                                     _mm_setr_epi32(0, 0x04040404, 0x08080808, 0x0c0c0c0c));
    return {_mm_shuffle_epi8(v.low, all), _mm_shuffle_epi8(v.high, all)};
  }
};

}  // namespace renga::kernels::cpu

#endif  // RENGA_WORKER_KERNELS_CPU_ISA_AVX_H_

// The vector words of AVX-512 (F, BW, DQ, VL) with VNNI: 16 lanes, and byte dot products that add
// up in int32. isa_generic.h says what each word means.
// Include from translation units compiled with those flags alone.
#ifndef RENGA_WORKER_KERNELS_CPU_ISA_AVX512_H_
#define RENGA_WORKER_KERNELS_CPU_ISA_AVX512_H_

#include <immintrin.h>

#include <cstddef>
#include <cstdint>
#include <cstring>

#include "worker/kernels/cpu/unroll.h"

namespace renga::kernels::cpu {

struct Avx512Vnni {
  static constexpr int kLanes = 16;
  static constexpr bool kDot32 = true;
  static constexpr bool kWideSigned = false;
  static constexpr bool kSignedDot = false;
  static constexpr bool kWordScales = true;
  static constexpr bool kTokenPairs = false;
  static constexpr int kTileTokens = 4;
  static constexpr bool kSharesCodes = true;
  static constexpr int kStreams = 1;
  static constexpr int kStreams256 = 1;
  static constexpr int kPrefetchBytes = 1024;
  static constexpr int kPrefetchBytes256 = 1024;
  static constexpr int kPrefetchLevel = 2;
  static constexpr bool kStepByStep = true;
  static constexpr int kAttentionHeads = 8;
  using F = __m512;
  using I = __m512i;

  // Integers.
  RENGA_WORD I Load(const void* p) { return _mm512_loadu_si512(p); }
  RENGA_WORD I Once(I v) {
    asm("" : "+v"(v));
    return v;
  }
  RENGA_WORD void Store(void* p, I v) { _mm512_storeu_si512(p, v); }
  RENGA_WORD I ZeroI() { return _mm512_setzero_si512(); }
  RENGA_WORD I SetByte(int8_t x) { return _mm512_set1_epi8(x); }
  RENGA_WORD I SetI(int32_t x) { return _mm512_set1_epi32(x); }
  RENGA_WORD I Broadcast4(const void* p) {
    int32_t x;
    std::memcpy(&x, p, sizeof(x));
    return _mm512_set1_epi32(x);
  }
  RENGA_WORD I And(I a, I b) { return _mm512_and_si512(a, b); }
  RENGA_WORD I Or(I a, I b) { return _mm512_or_si512(a, b); }
  RENGA_WORD I OrMasked(I a, I b, I mask) { return _mm512_ternarylogic_epi32(a, b, mask, 0xf8); }
  RENGA_WORD I Xor(I a, I b) { return _mm512_xor_si512(a, b); }
  RENGA_WORD I SubByte(I a, I b) { return _mm512_sub_epi8(a, b); }
  RENGA_WORD I AddI(I a, I b) { return _mm512_add_epi32(a, b); }
  RENGA_WORD I SubI(I a, I b) { return _mm512_sub_epi32(a, b); }
  template <int kBits>
  RENGA_WORD I ShiftLeft(I a) {
    return _mm512_slli_epi32(a, kBits);
  }
  template <int kBits>
  RENGA_WORD I ShiftRight(I a) {
    return _mm512_srli_epi32(a, kBits);
  }
  RENGA_WORD I WidenU16(const void* p) { return _mm512_cvtepu16_epi32(Load256(p)); }
  RENGA_WORD I WidenS8(const void* p) {
    return _mm512_cvtepi8_epi32(_mm_loadu_si128(static_cast<const __m128i*>(p)));
  }
  RENGA_WORD I LoadTable(const int8_t* table) {
    return _mm512_broadcast_i32x4(_mm_loadu_si128(reinterpret_cast<const __m128i*>(table)));
  }
  RENGA_WORD I Lookup(I table, I index) { return _mm512_shuffle_epi8(table, index); }

  // Dot products. A partial sum is int32 already.
  RENGA_WORD I DotBytes(I acc, I codes, I activations) {
    return _mm512_dpbusd_epi32(acc, codes, activations);
  }
  RENGA_WORD I SumDot(I partial) { return partial; }
  RENGA_WORD I ScaleDot(I acc, I partial, I scale) { return MulI(acc, partial, scale); }
  RENGA_WORD I MulPairs(I acc, I a, I b) { return _mm512_dpwssd_epi32(acc, a, b); }
  RENGA_WORD I MulI(I acc, I a, I b) { return _mm512_add_epi32(acc, _mm512_mullo_epi32(a, b)); }
  template <int kByte>
  RENGA_WORD I DotScaleU(I bytes) {
    return And(ShiftRight<8 * kByte>(bytes), SetI(0xff));
  }
  template <int kByte>
  RENGA_WORD I DotScaleS(I bytes) {
    constexpr __mmask32 kLowWords = 0x55555555;
    I upper;  // the byte as the upper one of each low word
    if constexpr (kByte == 0) {
      upper = ShiftLeft<8>(bytes);
    } else {
      upper = ShiftRight<8 * kByte - 8>(bytes);
    }
    return _mm512_maskz_srai_epi16(kLowWords, upper, 8);
  }
  template <int kByte>
  RENGA_WORD I ScaleS(I bytes) {
    return _mm512_srai_epi32(ShiftLeft<24 - 8 * kByte>(bytes), 24);
  }
  template <int kPair>
  RENGA_WORD I PairU(I bytes) {
    const I x = ShiftRight<16 * kPair>(bytes);
    return Or(And(x, SetI(0xff)), And(ShiftLeft<8>(x), SetI(0xff0000)));
  }
  template <int kPair>
  RENGA_WORD I PairS(I bytes) {
    return Or(And(ScaleS<2 * kPair>(bytes), SetI(0xffff)),
              ShiftLeft<16>(ScaleS<2 * kPair + 1>(bytes)));
  }

  // Floats.
  RENGA_WORD F ZeroF() { return _mm512_setzero_ps(); }
  RENGA_WORD F SetF(float x) { return _mm512_set1_ps(x); }
  RENGA_WORD F LoadF(const float* p) { return _mm512_loadu_ps(p); }
  RENGA_WORD void StoreF(float* p, F v) { _mm512_storeu_ps(p, v); }
  RENGA_WORD F AddF(F a, F b) { return _mm512_add_ps(a, b); }
  RENGA_WORD F SubF(F a, F b) { return _mm512_sub_ps(a, b); }
  RENGA_WORD F MulF(F a, F b) { return _mm512_mul_ps(a, b); }
  RENGA_WORD F DivF(F a, F b) { return _mm512_div_ps(a, b); }
  RENGA_WORD F MinF(F a, F b) { return _mm512_min_ps(a, b); }
  RENGA_WORD F MaxF(F a, F b) { return _mm512_max_ps(a, b); }
  RENGA_WORD F AbsF(F a) { return AsF(And(_mm512_castps_si512(a), SetI(0x7fffffff))); }
  RENGA_WORD F MulAddF(F a, F b, F c) { return _mm512_fmadd_ps(a, b, c); }
  RENGA_WORD F ToF(I v) { return _mm512_cvtepi32_ps(v); }
  RENGA_WORD F KeepWhereAtLeast(F v, F x, F limit) {
    return _mm512_maskz_mov_ps(_mm512_cmp_ps_mask(x, limit, _CMP_GE_OQ), v);
  }
  RENGA_WORD I Round(F v) { return _mm512_cvtps_epi32(v); }
  RENGA_WORD F AsF(I v) { return _mm512_castsi512_ps(v); }
  RENGA_WORD F LoadHalf(const void* p) { return _mm512_cvtph_ps(Load256(p)); }
  RENGA_WORD void StoreHalf(void* p, F v) {
    const __m256i halves = _mm512_cvtps_ph(v, _MM_FROUND_TO_NEAREST_INT);
    _mm256_storeu_si256(static_cast<__m256i*>(p), halves);
  }
  RENGA_WORD float SumF(F v) {
    const __m256 half = _mm256_add_ps(_mm512_castps512_ps256(v), _mm512_extractf32x8_ps(v, 1));
    __m128 x = _mm_add_ps(_mm256_castps256_ps128(half), _mm256_extractf128_ps(half, 1));
    x = _mm_add_ps(x, _mm_movehl_ps(x, x));
    return _mm_cvtss_f32(_mm_add_ss(x, _mm_movehdup_ps(x)));
  }
  RENGA_WORD float LargestF(F v) {
    const __m256 half = _mm256_max_ps(_mm512_castps512_ps256(v), _mm512_extractf32x8_ps(v, 1));
    __m128 x = _mm_max_ps(_mm256_castps256_ps128(half), _mm256_extractf128_ps(half, 1));
    x = _mm_max_ps(x, _mm_movehl_ps(x, x));
    return _mm_cvtss_f32(_mm_max_ss(x, _mm_movehdup_ps(x)));
  }
  RENGA_WORD void StoreBytes(int8_t* p, I v) {
    _mm_storeu_si128(reinterpret_cast<__m128i*>(p), _mm512_cvtsepi32_epi8(v));
  }

 private:
  RENGA_WORD __m256i Load256(const void* p) {
    return _mm256_loadu_si256(static_cast<const __m256i*>(p));
  }
};

}  // namespace renga::kernels::cpu

#endif  // RENGA_WORKER_KERNELS_CPU_ISA_AVX512_H_

// The vector words of AVX2 + FMA + F16C: 8 lanes. isa_generic.h says what each word means.
// Include from translation units compiled with -mavx2 -mfma -mf16c alone.
#ifndef RENGA_WORKER_KERNELS_CPU_ISA_AVX2_H_
#define RENGA_WORKER_KERNELS_CPU_ISA_AVX2_H_

#include <immintrin.h>

#include <cstddef>
#include <cstdint>
#include <cstring>

#include "worker/kernels/cpu/unroll.h"

namespace renga::kernels::cpu {

struct Avx2 {
  static constexpr int kLanes = 8;
  static constexpr bool kDot32 = false;
  static constexpr bool kWideSigned = true;
  static constexpr bool kSignedDot = false;
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
  static constexpr int kAttentionHeads = 4;
  using F = __m256;
  using I = __m256i;

  // Integers.
  RENGA_WORD I Load(const void* p) { return _mm256_loadu_si256(static_cast<const __m256i*>(p)); }
  RENGA_WORD I Once(I v) { return v; }
  RENGA_WORD void Store(void* p, I v) { _mm256_storeu_si256(static_cast<__m256i*>(p), v); }
  RENGA_WORD I ZeroI() { return _mm256_setzero_si256(); }
  RENGA_WORD I SetByte(int8_t x) { return _mm256_set1_epi8(x); }
  RENGA_WORD I SetI(int32_t x) { return _mm256_set1_epi32(x); }
  RENGA_WORD I Broadcast4(const void* p) {
    int32_t x;
    std::memcpy(&x, p, sizeof(x));
    return _mm256_set1_epi32(x);
  }
  RENGA_WORD I And(I a, I b) { return _mm256_and_si256(a, b); }
  RENGA_WORD I Or(I a, I b) { return _mm256_or_si256(a, b); }
  RENGA_WORD I OrMasked(I a, I b, I mask) { return Or(a, And(b, mask)); }
  RENGA_WORD I Xor(I a, I b) { return _mm256_xor_si256(a, b); }
  RENGA_WORD I SubByte(I a, I b) { return _mm256_sub_epi8(a, b); }
  RENGA_WORD I AddI(I a, I b) { return _mm256_add_epi32(a, b); }
  RENGA_WORD I SubI(I a, I b) { return _mm256_sub_epi32(a, b); }
  template <int kBits>
  RENGA_WORD I ShiftLeft(I a) {
    return _mm256_slli_epi32(a, kBits);
  }
  template <int kBits>
  RENGA_WORD I ShiftRight(I a) {
    return _mm256_srli_epi32(a, kBits);
  }
  template <int kBits>
  RENGA_WORD I ShiftWordsLeft(I a) {
    return _mm256_slli_epi16(a, kBits);
  }
  RENGA_WORD I WidenU16(const void* p) {
    return _mm256_cvtepu16_epi32(_mm_loadu_si128(static_cast<const __m128i*>(p)));
  }
  RENGA_WORD I WidenS8(const void* p) {
    return _mm256_cvtepi8_epi32(_mm_loadl_epi64(static_cast<const __m128i*>(p)));
  }
  RENGA_WORD I LoadTable(const int8_t* table) {
    return _mm256_broadcastsi128_si256(_mm_loadu_si128(reinterpret_cast<const __m128i*>(table)));
  }
  RENGA_WORD I Lookup(I table, I index) { return _mm256_shuffle_epi8(table, index); }

  // Dot products.
  RENGA_WORD I DotBytes(I acc, I codes, I activations) {
    return InOrder(_mm256_add_epi16(acc, _mm256_maddubs_epi16(codes, activations)));
  }
  RENGA_WORD I SumDot(I partial) { return _mm256_madd_epi16(partial, _mm256_set1_epi16(1)); }
  RENGA_WORD I ScaleDot(I acc, I partial, I scale) {
    return _mm256_add_epi32(acc, _mm256_madd_epi16(partial, scale));
  }
  RENGA_WORD I MulPairs(I acc, I a, I b) { return _mm256_add_epi32(acc, _mm256_madd_epi16(a, b)); }
  RENGA_WORD I MulBytePairs(I acc, I a, I b) { return InOrder(MulPairs(acc, a, b)); }
  RENGA_WORD I MulSumPairs(I acc, I a, I b, I c, I d) {
    return InOrder(MulPairs(acc, _mm256_add_epi16(a, b), _mm256_add_epi16(c, d)));
  }
  RENGA_WORD I MulI(I acc, I a, I b) { return _mm256_add_epi32(acc, _mm256_mullo_epi32(a, b)); }
  RENGA_WORD I EvenWords(I v) { return _mm256_srai_epi16(_mm256_slli_epi16(v, 8), 8); }
  RENGA_WORD I OddWords(I v) { return _mm256_srai_epi16(v, 8); }
  template <int kByte>
  RENGA_WORD I DotScaleU(I bytes) {
    constexpr int32_t kPattern = Pattern(kByte, 0x80, kByte, 0x80);
    return _mm256_shuffle_epi8(bytes, Repeat(kPattern));
  }
  template <int kByte>
  RENGA_WORD I DotScaleS(I bytes) {
    constexpr int32_t kPattern = Pattern(0x80, kByte, 0x80, kByte);
    return _mm256_srai_epi16(_mm256_shuffle_epi8(bytes, Repeat(kPattern)), 8);
  }
  template <int kByte>
  RENGA_WORD I ScaleS(I bytes) {
    return _mm256_srai_epi32(_mm256_slli_epi32(bytes, 24 - 8 * kByte), 24);
  }
  template <int kPair>
  RENGA_WORD I PairU(I bytes) {
    constexpr int32_t kPattern = Pattern(2 * kPair, 0x80, 2 * kPair + 1, 0x80);
    return _mm256_shuffle_epi8(bytes, Repeat(kPattern));
  }
  template <int kPair>
  RENGA_WORD I PairS(I bytes) {
    constexpr int32_t kPattern = Pattern(0x80, 2 * kPair, 0x80, 2 * kPair + 1);
    return _mm256_srai_epi16(_mm256_shuffle_epi8(bytes, Repeat(kPattern)), 8);
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
  RENGA_WORD F MulAddF(F a, F b, F c) { return _mm256_fmadd_ps(a, b, c); }
  RENGA_WORD F ToF(I v) { return _mm256_cvtepi32_ps(v); }
  RENGA_WORD F KeepWhereAtLeast(F v, F x, F limit) {
    return _mm256_and_ps(v, _mm256_cmp_ps(x, limit, _CMP_GE_OQ));
  }
  RENGA_WORD I Round(F v) { return _mm256_cvtps_epi32(v); }
  RENGA_WORD F AsF(I v) { return _mm256_castsi256_ps(v); }
  RENGA_WORD F LoadHalf(const void* p) {
    return _mm256_cvtph_ps(_mm_loadu_si128(static_cast<const __m128i*>(p)));
  }
  RENGA_WORD void StoreHalf(void* p, F v) {
    _mm_storeu_si128(static_cast<__m128i*>(p), _mm256_cvtps_ph(v, _MM_FROUND_TO_NEAREST_INT));
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
    const __m128i words =
        _mm_packs_epi32(_mm256_castsi256_si128(v), _mm256_extracti128_si256(v, 1));
    _mm_storel_epi64(reinterpret_cast<__m128i*>(p), _mm_packs_epi16(words, words));
  }

 private:
  // Keeps an addition where it is written. Compilers move the additions of an unrolled dot product
  // behind all its multiplications, and then have no registers for the products.
  RENGA_WORD I InOrder(I v) {
    asm("" : "+x"(v));
    return v;
  }
  static constexpr int32_t Pattern(int b0, int b1, int b2, int b3) {
    return static_cast<int32_t>(
        (static_cast<uint32_t>(b0) & 0xff) | (static_cast<uint32_t>(b1) & 0xff) << 8 |
        (static_cast<uint32_t>(b2) & 0xff) << 16 | (static_cast<uint32_t>(b3) & 0xff) << 24);
  }
  // The byte pattern of one lane, for every lane of each 128-bit part; 0x80 gives a zero byte.
  RENGA_WORD I Repeat(int32_t pattern) {
    return _mm256_add_epi8(_mm256_set1_epi32(pattern),
                           _mm256_setr_epi32(0, 0x04040404, 0x08080808, 0x0c0c0c0c, 0, 0x04040404,
                                             0x08080808, 0x0c0c0c0c));
  }
};

}  // namespace renga::kernels::cpu

#endif  // RENGA_WORKER_KERNELS_CPU_ISA_AVX2_H_

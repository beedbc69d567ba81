// The integer words of SSSE3: 8 lanes as two halves. isa_generic.h says what each word means. The
// paths for processors without AVX2 add floats to them.
#ifndef RENGA_WORKER_KERNELS_CPU_SSE_INTEGERS_H_
#define RENGA_WORKER_KERNELS_CPU_SSE_INTEGERS_H_

#include <tmmintrin.h>

#include <cstddef>
#include <cstdint>
#include <cstring>

#include "worker/kernels/cpu/unroll.h"

namespace renga::kernels::cpu {

struct SseIntegers {
  static constexpr int kLanes = 8;
  static constexpr bool kDot32 = false;
  static constexpr bool kWideSigned = true;
  static constexpr bool kSignedDot = false;
  static constexpr bool kWordScales = false;
  static constexpr bool kTokenPairs = false;
  struct I {
    __m128i low, high;
  };

  // Integers.
  RENGA_WORD I Load(const void* p) {
    const auto* v = static_cast<const __m128i*>(p);
    return {_mm_loadu_si128(v), _mm_loadu_si128(v + 1)};
  }
  RENGA_WORD I Once(I v) { return v; }
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
  RENGA_WORD I OrMasked(I a, I b, I mask) { return Or(a, And(b, mask)); }
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
  template <int kBits>
  RENGA_WORD I ShiftWordsLeft(I a) {
    return {_mm_slli_epi16(a.low, kBits), _mm_slli_epi16(a.high, kBits)};
  }
  RENGA_WORD I WidenU16(const void* p) {
    const __m128i v = _mm_loadu_si128(static_cast<const __m128i*>(p));
    return {_mm_unpacklo_epi16(v, _mm_setzero_si128()), _mm_unpackhi_epi16(v, _mm_setzero_si128())};
  }
  RENGA_WORD I WidenS8(const void* p) {
    // Each byte to the top of its lane, then down with its sign.
    const __m128i v = _mm_loadl_epi64(static_cast<const __m128i*>(p));
    const __m128i words = _mm_unpacklo_epi8(_mm_setzero_si128(), v);
    return {_mm_srai_epi32(_mm_unpacklo_epi16(_mm_setzero_si128(), words), 24),
            _mm_srai_epi32(_mm_unpackhi_epi16(_mm_setzero_si128(), words), 24)};
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
  RENGA_WORD I MulSumPairs(I acc, I a, I b, I c, I d) {
    return InOrder(MulPairs(acc, {_mm_add_epi16(a.low, b.low), _mm_add_epi16(a.high, b.high)},
                            {_mm_add_epi16(c.low, d.low), _mm_add_epi16(c.high, d.high)}));
  }
  RENGA_WORD I MulI(I acc, I a, I b) {
    return {_mm_add_epi32(acc.low, Mul(a.low, b.low)),
            _mm_add_epi32(acc.high, Mul(a.high, b.high))};
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
  RENGA_WORD void StoreBytes(int8_t* p, I v) {
    const __m128i words = _mm_packs_epi32(v.low, v.high);
    _mm_storel_epi64(reinterpret_cast<__m128i*>(p), _mm_packs_epi16(words, words));
  }

  // Beyond the words: what floats without F16C are converted with.
  RENGA_WORD I Greater(I v, int32_t limit) {
    const __m128i x = _mm_set1_epi32(limit);
    return {_mm_cmpgt_epi32(v.low, x), _mm_cmpgt_epi32(v.high, x)};
  }
  RENGA_WORD I Choose(I mask, I yes, I no) { return Xor(no, And(mask, Xor(yes, no))); }
  // The low words of the lanes, 16 bytes.
  RENGA_WORD void StoreWords(void* p, I v) {
    const I low = Shuffle(v, Pattern(0, 1, 0x80, 0x80));
    // Of each half the words of lanes 0 to 3, one after the other.
    const __m128i order = _mm_setr_epi8(0, 1, 4, 5, 8, 9, 12, 13, -1, -1, -1, -1, -1, -1, -1, -1);
    _mm_storeu_si128(
        static_cast<__m128i*>(p),
        _mm_unpacklo_epi64(_mm_shuffle_epi8(low.low, order), _mm_shuffle_epi8(low.high, order)));
  }

 private:
  // Keeps an addition where it is written. Compilers move the additions of an unrolled dot product
  // behind all its multiplications, and then have no registers for the products.
  RENGA_WORD I InOrder(I v) {
    asm("" : "+x"(v.low), "+x"(v.high));
    return v;
  }
  RENGA_WORD I Both(__m128i v) { return {v, v}; }
  // The low 32 bits of each product, which SSSE3 has for every other lane.
  RENGA_WORD __m128i Mul(__m128i a, __m128i b) {
    const __m128i even = _mm_mul_epu32(a, b);
    const __m128i odd = _mm_mul_epu32(_mm_srli_epi64(a, 32), _mm_srli_epi64(b, 32));
    return _mm_unpacklo_epi32(_mm_shuffle_epi32(even, _MM_SHUFFLE(0, 0, 2, 0)),
                              _mm_shuffle_epi32(odd, _MM_SHUFFLE(0, 0, 2, 0)));
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

#endif  // RENGA_WORKER_KERNELS_CPU_SSE_INTEGERS_H_

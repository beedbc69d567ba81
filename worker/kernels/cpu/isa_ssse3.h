// The vector words of SSSE3: 8 lanes as two halves, for processors without AVX (Core 2, Nehalem,
// many Pentiums and Celerons since). isa_generic.h says what each word means. All floats are added,
// multiplied and rounded as in isa_avx.h, so this path gives the bits of that one.
// Include from translation units compiled with -mssse3 alone.
#ifndef RENGA_WORKER_KERNELS_CPU_ISA_SSSE3_H_
#define RENGA_WORKER_KERNELS_CPU_ISA_SSSE3_H_

#include <tmmintrin.h>

#include <cstdint>

#include "worker/kernels/cpu/soft_half.h"
#include "worker/kernels/cpu/sse_integers.h"
#include "worker/kernels/cpu/unroll.h"

namespace renga::kernels::cpu {

struct Ssse3 : SseIntegers {
  static constexpr int kTileTokens = 1;
  static constexpr bool kSharesCodes = false;
  static constexpr int kStreams = 4;
  static constexpr int kStreams256 = 4;
  static constexpr int kPrefetchBytes = 1024;
  static constexpr int kPrefetchBytes256 = 2048;
  static constexpr int kPrefetchLevel = 3;
  static constexpr bool kStepByStep = false;
  static constexpr int kAttentionHeads = 2;
  struct F {
    __m128 low, high;
  };

  RENGA_WORD F ZeroF() { return {_mm_setzero_ps(), _mm_setzero_ps()}; }
  RENGA_WORD F SetF(float x) { return {_mm_set1_ps(x), _mm_set1_ps(x)}; }
  RENGA_WORD F LoadF(const float* p) { return {_mm_loadu_ps(p), _mm_loadu_ps(p + 4)}; }
  RENGA_WORD void StoreF(float* p, F v) {
    _mm_storeu_ps(p, v.low);
    _mm_storeu_ps(p + 4, v.high);
  }
  RENGA_WORD F AddF(F a, F b) { return {_mm_add_ps(a.low, b.low), _mm_add_ps(a.high, b.high)}; }
  RENGA_WORD F SubF(F a, F b) { return {_mm_sub_ps(a.low, b.low), _mm_sub_ps(a.high, b.high)}; }
  RENGA_WORD F MulF(F a, F b) { return {_mm_mul_ps(a.low, b.low), _mm_mul_ps(a.high, b.high)}; }
  RENGA_WORD F DivF(F a, F b) { return {_mm_div_ps(a.low, b.low), _mm_div_ps(a.high, b.high)}; }
  RENGA_WORD F MinF(F a, F b) { return {_mm_min_ps(a.low, b.low), _mm_min_ps(a.high, b.high)}; }
  RENGA_WORD F MaxF(F a, F b) { return {_mm_max_ps(a.low, b.low), _mm_max_ps(a.high, b.high)}; }
  RENGA_WORD F AbsF(F a) {
    const __m128 sign = _mm_set1_ps(-0.0f);
    return {_mm_andnot_ps(sign, a.low), _mm_andnot_ps(sign, a.high)};
  }
  RENGA_WORD F MulAddF(F a, F b, F c) { return AddF(MulF(a, b), c); }
  RENGA_WORD F ToF(I v) { return {_mm_cvtepi32_ps(v.low), _mm_cvtepi32_ps(v.high)}; }
  RENGA_WORD F KeepWhereAtLeast(F v, F x, F limit) {
    return {_mm_and_ps(v.low, _mm_cmpge_ps(x.low, limit.low)),
            _mm_and_ps(v.high, _mm_cmpge_ps(x.high, limit.high))};
  }
  RENGA_WORD I Round(F v) { return {_mm_cvtps_epi32(v.low), _mm_cvtps_epi32(v.high)}; }
  RENGA_WORD I AsI(F v) { return {_mm_castps_si128(v.low), _mm_castps_si128(v.high)}; }
  RENGA_WORD F AsF(I v) { return {_mm_castsi128_ps(v.low), _mm_castsi128_ps(v.high)}; }
  RENGA_WORD F LoadHalf(const void* p) { return SoftHalf<Ssse3>::Load(p); }
  RENGA_WORD void StoreHalf(void* p, F v) { SoftHalf<Ssse3>::Store(p, v); }
  RENGA_WORD float SumF(F v) {
    __m128 x = _mm_add_ps(v.low, v.high);
    x = _mm_add_ps(x, _mm_movehl_ps(x, x));
    return _mm_cvtss_f32(_mm_add_ss(x, _mm_movehdup_ps(x)));
  }
  RENGA_WORD float LargestF(F v) {
    __m128 x = _mm_max_ps(v.low, v.high);
    x = _mm_max_ps(x, _mm_movehl_ps(x, x));
    return _mm_cvtss_f32(_mm_max_ss(x, _mm_movehdup_ps(x)));
  }
};

}  // namespace renga::kernels::cpu

#endif  // RENGA_WORKER_KERNELS_CPU_ISA_SSSE3_H_

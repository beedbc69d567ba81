// The vector words of AVX without FMA, F16C or AVX2: 8 lanes, integers as two SSSE3 halves.
// isa_generic.h says what each word means.
// Include from translation units compiled with -mavx alone.
#ifndef RENGA_WORKER_KERNELS_CPU_ISA_AVX_H_
#define RENGA_WORKER_KERNELS_CPU_ISA_AVX_H_

#include <immintrin.h>

#include <cstdint>

#include "worker/kernels/cpu/soft_half.h"
#include "worker/kernels/cpu/sse_integers.h"
#include "worker/kernels/cpu/unroll.h"

namespace renga::kernels::cpu {

struct Avx : SseIntegers {
  static constexpr int kTileTokens = 2;
  static constexpr bool kSharesCodes = false;
  static constexpr int kStreams = 4;
  static constexpr int kStreams256 = 4;
  static constexpr int kPrefetchBytes = 1024;
  static constexpr int kPrefetchBytes256 = 2048;
  static constexpr int kPrefetchLevel = 3;
  static constexpr bool kStepByStep = false;
  static constexpr int kAttentionHeads = 2;
  using F = __m256;

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
  RENGA_WORD I AsI(F v) { return Split(_mm256_castps_si256(v)); }
  RENGA_WORD F AsF(I v) { return _mm256_castsi256_ps(Join(v)); }
  RENGA_WORD F LoadHalf(const void* p) { return SoftHalf<Avx>::Load(p); }
  RENGA_WORD void StoreHalf(void* p, F v) { SoftHalf<Avx>::Store(p, v); }
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

 private:
  RENGA_WORD __m256i Join(I v) {
    return _mm256_insertf128_si256(_mm256_castsi128_si256(v.low), v.high, 1);
  }
  RENGA_WORD I Split(__m256i v) {
    return {_mm256_castsi256_si128(v), _mm256_extractf128_si256(v, 1)};
  }
};

}  // namespace renga::kernels::cpu

#endif  // RENGA_WORKER_KERNELS_CPU_ISA_AVX_H_

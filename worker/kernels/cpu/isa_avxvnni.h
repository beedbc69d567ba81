// The vector words of AVX-VNNI: AVX2's, with byte dot products that add up in int32. Integer sums
// are exact either way and the floats are AVX2's, so this path gives the bits of isa_avx2.h's.
// Include from translation units compiled with -mavxvnni -mavx2 -mfma -mf16c alone.
#ifndef RENGA_WORKER_KERNELS_CPU_ISA_AVXVNNI_H_
#define RENGA_WORKER_KERNELS_CPU_ISA_AVXVNNI_H_

#include <immintrin.h>

#include "worker/kernels/cpu/isa_avx2.h"
#include "worker/kernels/cpu/unroll.h"

namespace renga::kernels::cpu {

struct AvxVnni : Avx2 {
  static constexpr bool kDot32 = true;
  static constexpr bool kWideSigned = false;
  static constexpr bool kWordScales = true;

  // A partial sum is int32 already.
  RENGA_WORD I DotBytes(I acc, I codes, I activations) {
    return _mm256_dpbusd_avx_epi32(acc, codes, activations);
  }
  RENGA_WORD I SumDot(I partial) { return partial; }
  RENGA_WORD I ScaleDot(I acc, I partial, I scale) { return MulI(acc, partial, scale); }
  RENGA_WORD I MulPairs(I acc, I a, I b) { return _mm256_dpwssd_avx_epi32(acc, a, b); }
  template <int kByte>
  RENGA_WORD I DotScaleU(I bytes) {
    return And(ShiftRight<8 * kByte>(bytes), SetI(0xff));
  }
  template <int kByte>
  RENGA_WORD I DotScaleS(I bytes) {
    return And(ScaleS<kByte>(bytes), SetI(0xffff));
  }
};

}  // namespace renga::kernels::cpu

#endif  // RENGA_WORKER_KERNELS_CPU_ISA_AVXVNNI_H_

// The vector words of NEON with dot product instructions (Cortex-A55, A76 and later): NEON's, with
// four products added at once. Integer sums are exact either way and the floats are NEON's, so this
// path gives the bits of isa_neon.h's.
// Include from translation units compiled with +dotprod alone.
#ifndef RENGA_WORKER_KERNELS_CPU_ISA_NEON_DOTPROD_H_
#define RENGA_WORKER_KERNELS_CPU_ISA_NEON_DOTPROD_H_

#include <arm_neon.h>

#include "worker/kernels/cpu/isa_neon.h"
#include "worker/kernels/cpu/unroll.h"

namespace renga::kernels::cpu {

struct NeonDotprod : Neon {
  RENGA_WORD I DotBytes(I acc, I codes, I activations) {
    return {DotHalf(acc.low, codes.low, activations.low),
            DotHalf(acc.high, codes.high, activations.high)};
  }

 private:
  RENGA_WORD int32x4_t DotHalf(int32x4_t acc, int32x4_t a, int32x4_t b) {
    return vdotq_s32(acc, vreinterpretq_s8_s32(a), vreinterpretq_s8_s32(b));
  }
};

}  // namespace renga::kernels::cpu

#endif  // RENGA_WORKER_KERNELS_CPU_ISA_NEON_DOTPROD_H_

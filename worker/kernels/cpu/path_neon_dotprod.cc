// The NEON path with dot products. Compiled with -march=armv8.2-a+dotprod. It has NEON's name,
// which stands for the bits.
#include "worker/kernels/cpu/isa_neon_dotprod.h"
#include "worker/kernels/cpu/path_kernels.h"

namespace renga::kernels::cpu {

const CpuKernels& NeonDotprodKernels() {
  static constexpr CpuKernels kKernels =
      PathKernels<NeonDotprod>("cpu-neon-1", &FormatKernelsOf<NeonDotprod>);
  return kKernels;
}

}  // namespace renga::kernels::cpu

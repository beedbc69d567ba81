// The NEON path with matrix products of bytes. Compiled with -march=armv8.2-a+dotprod+i8mm. It has
// NEON's name, which stands for the bits.
#include "worker/kernels/cpu/isa_neon_i8mm.h"
#include "worker/kernels/cpu/path_kernels.h"

namespace renga::kernels::cpu {

const CpuKernels& NeonI8mmKernels() {
  static constexpr CpuKernels kKernels =
      PathKernels<NeonI8mm>("cpu-neon-1", &FormatKernelsOf<NeonI8mm>);
  return kKernels;
}

}  // namespace renga::kernels::cpu

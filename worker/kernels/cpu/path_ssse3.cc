// The SSSE3 path. Compiled with -mssse3. It has the AVX path's name, which stands for the bits.
#include "worker/kernels/cpu/isa_ssse3.h"
#include "worker/kernels/cpu/path_kernels.h"

namespace renga::kernels::cpu {

const CpuKernels& Ssse3Kernels() {
  static constexpr CpuKernels kKernels = PathKernels<Ssse3>("cpu-avx-1", &FormatKernelsOf<Ssse3>);
  return kKernels;
}

}  // namespace renga::kernels::cpu

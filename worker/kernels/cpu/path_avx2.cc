// The AVX2 path. Compiled with -mavx2 -mfma -mf16c.
#include "worker/kernels/cpu/isa_avx2.h"
#include "worker/kernels/cpu/path_kernels.h"

namespace renga::kernels::cpu {

const CpuKernels& Avx2Kernels() {
  static constexpr CpuKernels kKernels = PathKernels<Avx2>("cpu-avx2-1", &FormatKernelsOf<Avx2>);
  return kKernels;
}

}  // namespace renga::kernels::cpu

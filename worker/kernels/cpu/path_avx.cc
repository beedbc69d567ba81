// The AVX path. Compiled with -mavx.
#include "worker/kernels/cpu/isa_avx.h"
#include "worker/kernels/cpu/path_kernels.h"

namespace renga::kernels::cpu {

const CpuKernels& AvxKernels() {
  static constexpr CpuKernels kKernels = PathKernels<Avx>("cpu-avx-1", &FormatKernelsOf<Avx>);
  return kKernels;
}

}  // namespace renga::kernels::cpu

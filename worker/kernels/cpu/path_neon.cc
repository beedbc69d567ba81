// The NEON path, of every 64-bit ARM processor.
#include "worker/kernels/cpu/isa_neon.h"
#include "worker/kernels/cpu/path_kernels.h"

namespace renga::kernels::cpu {

const CpuKernels& NeonKernels() {
  static constexpr CpuKernels kKernels = PathKernels<Neon>("cpu-neon-1", &FormatKernelsOf<Neon>);
  return kKernels;
}

}  // namespace renga::kernels::cpu

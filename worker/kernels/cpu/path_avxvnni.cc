// The AVX-VNNI path. Compiled with -mavxvnni -mavx2 -mfma -mf16c. It has AVX2's name, which stands
// for the bits.
#include "worker/kernels/cpu/isa_avxvnni.h"
#include "worker/kernels/cpu/path_kernels.h"

namespace renga::kernels::cpu {

const CpuKernels& AvxVnniKernels() {
  static constexpr CpuKernels kKernels =
      PathKernels<AvxVnni>("cpu-avx2-1", &FormatKernelsOf<AvxVnni>);
  return kKernels;
}

}  // namespace renga::kernels::cpu

// The AVX-512 VNNI path. Compiled with -mavx512f -mavx512bw -mavx512dq -mavx512vl -mavx512vnni.
#include "worker/kernels/cpu/isa_avx512.h"
#include "worker/kernels/cpu/path_kernels.h"

namespace renga::kernels::cpu {

const CpuKernels& Avx512VnniKernels() {
  static constexpr CpuKernels kKernels =
      PathKernels<Avx512Vnni>("cpu-avx512vnni-1", &FormatKernelsOf<Avx512Vnni>);
  return kKernels;
}

}  // namespace renga::kernels::cpu

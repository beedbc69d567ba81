// The kernel tables of the imitations of AVX-512 VNNI and, above it, AMX. A translation unit each,
// to build in parallel.
#ifndef RENGA_WORKER_KERNELS_CONFORMANCE_EMULATED_KERNELS_H_
#define RENGA_WORKER_KERNELS_CONFORMANCE_EMULATED_KERNELS_H_

#include "worker/kernels/cpu/kernel_table.h"

namespace renga::kernels::conformance {

const cpu::CpuKernels& LikeAvx512VnniKernels();
const cpu::CpuKernels& LikeAmxKernels();

}  // namespace renga::kernels::conformance

#endif  // RENGA_WORKER_KERNELS_CONFORMANCE_EMULATED_KERNELS_H_

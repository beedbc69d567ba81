// The kernels of kernel_list.h as functions of the host.
#ifndef RENGA_WORKER_KERNELS_CUDA_EMULATION_EMULATED_KERNELS_H_
#define RENGA_WORKER_KERNELS_CUDA_EMULATION_EMULATED_KERNELS_H_

#include "worker/kernels/cuda/emulation/threads.h"
#include "worker/kernels/cuda/kernel_list.h"

namespace renga::kernels::cuda::emulation {

struct EmulatedKernel {
  KernelFunction function;
  int threads;        // of a block, at most: what the device's compiler was promised
  size_t args_bytes;  // of the kernel's struct
};
const EmulatedKernel& KernelOf(Kernel kernel);

}  // namespace renga::kernels::cuda::emulation

#endif  // RENGA_WORKER_KERNELS_CUDA_EMULATION_EMULATED_KERNELS_H_

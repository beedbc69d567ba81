// The Backend of NVIDIA cards, from sm_61 up: written once over Device, which is a card or, in
// tests, its imitation.
#ifndef RENGA_WORKER_KERNELS_CUDA_CUDA_BACKEND_H_
#define RENGA_WORKER_KERNELS_CUDA_CUDA_BACKEND_H_

#include <memory>

#include "worker/kernels/backend.h"
#include "worker/kernels/cuda/device.h"

namespace renga::kernels {

// How matrices are multiplied with many tokens: the same bits any way but the last.
enum class CudaPath {
  kBest,  // kMma where the device has tensor cores, else kDp4a
  kDp4a,
  kMma,  // the device must have the kernels
  // As kMma, and F16 matrices by tensor cores too, with any number of tokens: a path of its own
  // ("cuda-half-1"), whose last bits are those of the card's generation.
  kHalf,
};

std::unique_ptr<Backend> CreateCudaBackend(std::shared_ptr<cuda::Device> device,
                                           CudaPath path = CudaPath::kBest);

}  // namespace renga::kernels

#endif  // RENGA_WORKER_KERNELS_CUDA_CUDA_BACKEND_H_

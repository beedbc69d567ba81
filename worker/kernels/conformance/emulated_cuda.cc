#include "worker/kernels/conformance/emulated_cuda.h"

#if RENGA_EMULATED_CUDA
#include "worker/kernels/cuda/cuda_backend.h"
#include "worker/kernels/cuda/emulation/emulated_device.h"
#endif

namespace renga::kernels::conformance {

#if RENGA_EMULATED_CUDA
bool HasEmulatedCuda() { return true; }

std::unique_ptr<Backend> CreateEmulatedCuda(const std::string& device, int threads) {
  using cuda::emulation::TensorCores;
  using cuda::emulation::Turns;
  const bool one = threads == 1;
  const TensorCores cores = one ? TensorCores::kOf16Rows : TensorCores::kOf8Rows;
  return CreateCudaBackend(
      cuda::emulation::CreateEmulatedDevice(one ? Turns::kForwards : Turns::kBackwards,
                                            device == kEmulatedCuda ? TensorCores::kNone : cores),
      device == kEmulatedHalf ? CudaPath::kHalf : CudaPath::kBest);
}
#else
bool HasEmulatedCuda() { return false; }
std::unique_ptr<Backend> CreateEmulatedCuda(const std::string& /*device*/, int /*threads*/) {
  return nullptr;
}
#endif

}  // namespace renga::kernels::conformance

#include "worker/kernels/conformance/emulated_cuda.h"

#if RENGA_EMULATED_CUDA
#include "worker/kernels/cuda/cuda_backend.h"
#include "worker/kernels/cuda/emulation/emulated_device.h"
#endif

namespace renga::kernels::conformance {

#if RENGA_EMULATED_CUDA
bool HasEmulatedCuda() { return true; }

std::unique_ptr<Backend> CreateEmulatedCuda(int threads, bool tensor_cores) {
  using cuda::emulation::Turns;
  return CreateCudaBackend(cuda::emulation::CreateEmulatedDevice(
      threads == 1 ? Turns::kForwards : Turns::kBackwards, tensor_cores));
}
#else
bool HasEmulatedCuda() { return false; }
std::unique_ptr<Backend> CreateEmulatedCuda(int /*threads*/, bool /*tensor_cores*/) {
  return nullptr;
}
#endif

}  // namespace renga::kernels::conformance

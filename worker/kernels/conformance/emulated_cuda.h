// The CUDA backend over an imitated card, where there is one: x86, and not under the thread
// sanitizer.
#ifndef RENGA_WORKER_KERNELS_CONFORMANCE_EMULATED_CUDA_H_
#define RENGA_WORKER_KERNELS_CONFORMANCE_EMULATED_CUDA_H_

#include <memory>
#include <string>

#include "worker/kernels/backend.h"

namespace renga::kernels::conformance {

inline constexpr char kEmulatedCuda[] = "emulated-cuda";
// The same card with tensor cores.
inline constexpr char kEmulatedMma[] = "emulated-cuda-mma";
// And with F16 matrices by them.
inline constexpr char kEmulatedHalf[] = "emulated-cuda-half";

bool HasEmulatedCuda();

// With one thread or with more, the threads of a block take their turns in opposite orders: a
// kernel without races gives the same bits. Tensor cores are those of new cards, or of 7.5.
std::unique_ptr<Backend> CreateEmulatedCuda(const std::string& device, int threads);

}  // namespace renga::kernels::conformance

#endif  // RENGA_WORKER_KERNELS_CONFORMANCE_EMULATED_CUDA_H_

#include "worker/kernels/cuda/emulation/emulated_kernels.h"

#include <array>

#define RENGA_KERNEL(name, Args, block_threads, body)                                        \
  struct Emulated_##name {                                                                   \
    static constexpr int kThreads = block_threads;                                           \
    static constexpr size_t kArgsBytes = sizeof(Args);                                       \
    static void Run(const void* args) { RENGA_CALL(body)(*static_cast<const Args*>(args)); } \
  };
// Takes the brackets off a body that has commas in it.
#define RENGA_CALL(body) RENGA_CALL_2(RENGA_BARE body)
#define RENGA_CALL_2(...) __VA_ARGS__
#define RENGA_BARE(...) __VA_ARGS__

#include "worker/kernels/cuda/device/kernels.h"

namespace renga::kernels::cuda::emulation {
namespace {

#define RENGA_ENTRY(name) \
  EmulatedKernel{&Emulated_##name::Run, Emulated_##name::kThreads, Emulated_##name::kArgsBytes},
constexpr std::array kKernels = {RENGA_CUDA_KERNELS(RENGA_ENTRY)};
#undef RENGA_ENTRY
static_assert(kKernels.size() == kKernelCount);

}  // namespace

const EmulatedKernel& KernelOf(Kernel kernel) { return kKernels[static_cast<size_t>(kernel)]; }

}  // namespace renga::kernels::cuda::emulation

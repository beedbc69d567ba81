// A card imitated on the host: kernels are the device's sources compiled as plain C++, and its
// memory is theirs alone (card_memory.h). For tests.
#ifndef RENGA_WORKER_KERNELS_CUDA_EMULATION_EMULATED_DEVICE_H_
#define RENGA_WORKER_KERNELS_CUDA_EMULATION_EMULATED_DEVICE_H_

#include <memory>

#include "worker/kernels/cuda/device.h"
#include "worker/kernels/cuda/emulation/threads.h"

namespace renga::kernels::cuda::emulation {

enum class TensorCores {
  kNone,
  kOf8Rows,   // as cards of compute capability 7.5
  kOf16Rows,  // as newer ones
};

// Bytes of memory of an emulated card.
inline constexpr int64_t kCardBytes = int64_t{1} << 30;

// A card without tensor cores, or one with them.
std::unique_ptr<Device> CreateEmulatedDevice(Turns turns,
                                             TensorCores tensor_cores = TensorCores::kNone);

}  // namespace renga::kernels::cuda::emulation

#endif  // RENGA_WORKER_KERNELS_CUDA_EMULATION_EMULATED_DEVICE_H_

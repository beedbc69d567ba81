// What CudaBackend needs of a card: memory, copies, and kernels by name, in one order. Implemented
// over the CUDA driver (driver_device.h) and, for tests, on the host (emulation/).
#ifndef RENGA_WORKER_KERNELS_CUDA_DEVICE_H_
#define RENGA_WORKER_KERNELS_CUDA_DEVICE_H_

#include <cstddef>
#include <cstdint>
#include <span>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "worker/kernels/cuda/kernel_list.h"

namespace renga::kernels::cuda {

// Blocks of a grid, and threads of a block (a multiple of 32, at most 1024).
struct LaunchShape {
  int64_t blocks_x = 1;
  int64_t blocks_y = 1;
  int threads = 32;
};

// Everything happens in the order of the calls. Used by one thread at a time.
class Device {
 public:
  virtual ~Device() = default;

  // Whether its code has the Tensor kernels.
  virtual bool has_tensor_kernels() const = 0;
  // And whether there are tensor cores to run them: without, they are slower than others.
  virtual bool has_tensor_cores() const = 0;

  // 256-byte aligned memory, not cleared. kResourceExhausted leaves the device usable. `bytes`
  // >= 1.
  virtual absl::StatusOr<std::byte*> Allocate(int64_t bytes) = 0;
  // Waits for what still uses it. An address from Allocate.
  virtual void Free(std::byte* memory) = 0;

  // `host` may change as soon as the call returns.
  virtual absl::Status Upload(std::span<const std::byte> host, std::byte* to) = 0;
  // Between two places of the device's memory that do not overlap.
  virtual absl::Status Copy(const std::byte* from, std::byte* to, int64_t bytes) = 0;
  // Waits for everything before it.
  virtual absl::Status Download(const std::byte* from, std::span<std::byte> host) = 0;

  // `args` is the kernel's struct of kernel_list.h. kInternal for what the device refuses.
  virtual absl::Status Launch(Kernel kernel, const LaunchShape& shape,
                              std::span<const std::byte> args) = 0;
  // Waits; reports what a kernel did wrong since the last time.
  virtual absl::Status Synchronize() = 0;

  // Whether everything before it is done; does not wait where the device can tell.
  virtual absl::StatusOr<bool> IsIdle() {
    const absl::Status done = Synchronize();
    if (!done.ok()) return done;
    return true;
  }

  // Where other libraries queue work between what was called before and what is called next: the
  // driver's stream, with the card the calling thread's. kUnimplemented where there is none.
  virtual absl::StatusOr<void*> Stream() {
    return absl::UnimplementedError("this device has no stream for other libraries");
  }
};

}  // namespace renga::kernels::cuda

#endif  // RENGA_WORKER_KERNELS_CUDA_DEVICE_H_

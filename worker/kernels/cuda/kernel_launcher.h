// How CudaBackend's parts launch kernels.
#ifndef RENGA_WORKER_KERNELS_CUDA_KERNEL_LAUNCHER_H_
#define RENGA_WORKER_KERNELS_CUDA_KERNEL_LAUNCHER_H_

#include <cstdint>
#include <memory>
#include <span>
#include <utility>

#include "absl/status/status.h"
#include "worker/kernels/cuda/device.h"
#include "worker/kernels/cuda/kernel_list.h"
#include "worker/kernels/cuda/launch_shapes.h"

namespace renga::kernels::cuda {

inline constexpr int64_t Ceil(int64_t a, int64_t b) { return (a + b - 1) / b; }

// Keeps the device alive. `args` is always the kernel's struct of kernel_list.h; errors are
// Device::Launch's.
class KernelLauncher {
 public:
  explicit KernelLauncher(std::shared_ptr<Device> device) : device_(std::move(device)) {}

  const std::shared_ptr<Device>& device() const { return device_; }

  template <class Args>
  absl::Status Launch(Kernel kernel, const LaunchShape& shape, const Args& args) const {
    return device_->Launch(kernel, shape, std::as_bytes(std::span(&args, 1)));
  }
  // A thread, or a warp, for each of `items`; none is nothing to do.
  template <class Args>
  absl::Status LaunchThreads(Kernel kernel, int64_t items, const Args& args) const {
    if (items == 0) return absl::OkStatus();
    return Launch(kernel, {Ceil(items, kRowThreads), 1, kRowThreads}, args);
  }
  template <class Args>
  absl::Status LaunchWarps(Kernel kernel, int64_t items, const Args& args) const {
    return LaunchThreads(kernel, items * 32, args);
  }

 private:
  const std::shared_ptr<Device> device_;
};

}  // namespace renga::kernels::cuda

#endif  // RENGA_WORKER_KERNELS_CUDA_KERNEL_LAUNCHER_H_

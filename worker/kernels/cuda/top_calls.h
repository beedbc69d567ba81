// The best columns of rows of logits: found on the device, merged on the host.
#ifndef RENGA_WORKER_KERNELS_CUDA_TOP_CALLS_H_
#define RENGA_WORKER_KERNELS_CUDA_TOP_CALLS_H_

#include <cstdint>
#include <memory>
#include <span>
#include <utility>

#include "absl/status/status.h"
#include "worker/kernels/backend.h"
#include "worker/kernels/cuda/device_memory.h"
#include "worker/kernels/cuda/kernel_launcher.h"

namespace renga::kernels::cuda {

class TopCalls {
 public:
  explicit TopCalls(std::shared_ptr<Device> device) : launcher_(std::move(device)) {}

  // As Backend::TopK.
  absl::Status TopK(ConstRowsView logits, int64_t k, std::span<TopRow> result);

 private:
  // Rows that one launch answers.
  absl::Status TopOfRows(ConstRowsView logits, int64_t k, std::span<TopRow> result);
  absl::Status TopOnHost(ConstRowsView logits, int64_t k, std::span<TopRow> result);

  const KernelLauncher launcher_;
  DeviceScratch top_;
};

}  // namespace renga::kernels::cuda

#endif  // RENGA_WORKER_KERNELS_CUDA_TOP_CALLS_H_

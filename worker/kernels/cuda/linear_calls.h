// Products of matrices with rows of activations: rounds or pads the rows, then launches the kernel
// that suits the matrix and the number of tokens.
#ifndef RENGA_WORKER_KERNELS_CUDA_LINEAR_CALLS_H_
#define RENGA_WORKER_KERNELS_CUDA_LINEAR_CALLS_H_

#include <memory>
#include <span>
#include <utility>

#include "absl/status/status.h"
#include "worker/kernels/backend.h"
#include "worker/kernels/cuda/cuda_matrix.h"
#include "worker/kernels/cuda/device_memory.h"
#include "worker/kernels/cuda/kernel_launcher.h"
#include "worker/kernels/cuda/kernel_list.h"

namespace renga::kernels::cuda {

// What tensor cores multiply, whose kernels the device must have.
struct TensorUse {
  bool quantized = false;  // with many tokens
  bool f16 = false;        // with any number of tokens
};

class LinearCalls {
 public:
  LinearCalls(std::shared_ptr<Device> device, TensorUse tensor_use)
      : launcher_(std::move(device)), tensor_use_(tensor_use) {}

  // As Backend::Linear.
  absl::Status Linear(ConstRowsView in, std::span<const LinearOutput> outputs);

 private:
  // The rows as kernels of quantised types, or of plain ones, take them.
  absl::Status Round(ConstRowsView in, LinearArgs& args);
  absl::Status Pad(ConstRowsView in, LinearArgs& args);
  absl::Status Launch(const CudaMatrix& matrix, const LinearArgs& args) const;
  // Rows of the output from `first_token` on; `args` has the activations.
  absl::Status Multiply(const LinearOutput& output, int64_t first_token, LinearArgs args) const;
  // Those of `outputs` whose matrices are quantised, or those that are not, `step` tokens at a
  // time.
  absl::Status MultiplyAll(ConstRowsView in, std::span<const LinearOutput> outputs, bool quantized,
                           int64_t step);

  const KernelLauncher launcher_;
  const TensorUse tensor_use_;
  DeviceScratch activations_;
};

}  // namespace renga::kernels::cuda

#endif  // RENGA_WORKER_KERNELS_CUDA_LINEAR_CALLS_H_

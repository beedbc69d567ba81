// What a step's positions decide: rotations, cells of the cache, attention. Their tables are made
// once for all layers of a step.
#ifndef RENGA_WORKER_KERNELS_CUDA_ATTENTION_CALLS_H_
#define RENGA_WORKER_KERNELS_CUDA_ATTENTION_CALLS_H_

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <utility>

#include "absl/status/status.h"
#include "worker/kernels/backend.h"
#include "worker/kernels/cuda/device_memory.h"
#include "worker/kernels/cuda/kernel_launcher.h"

namespace renga::kernels::cuda {

class AttentionCalls {
 public:
  explicit AttentionCalls(std::shared_ptr<Device> device) : launcher_(std::move(device)) {}

  // As Backend's.
  absl::Status Rope(RowsView rows, std::span<const int64_t> positions,
                    const kernels::RopeArgs& args);
  absl::Status StoreKv(ConstRowsView keys, ConstRowsView values, const KvCacheView& cache,
                       std::span<const SequenceSlot> slots);
  absl::Status Attention(const kernels::AttentionArgs& args);

  // To be called when memory on the device was written: the rope factors may have changed.
  void ForgetFactors() { rope_key_.reset(); }

 private:
  absl::Status PrepareRopeTable(std::span<const int64_t> positions, const kernels::RopeArgs& args);

  // What the rope table on the device was made of.
  struct RopeKey {
    int64_t positions_change = 0;
    int64_t dims = 0;
    double base = 0;
    double position_scale = 0;
    const float* factors = nullptr;
    bool operator==(const RopeKey&) const = default;
  };

  const KernelLauncher launcher_;
  DeviceScratch parts_;
  DeviceScratch rope_;
  DeviceTable positions_;
  DeviceTable stored_rows_;
  DeviceTable tiles_;
  DeviceTable blocks_;
  std::optional<RopeKey> rope_key_;
  const float* rope_table_ = nullptr;
};

}  // namespace renga::kernels::cuda

#endif  // RENGA_WORKER_KERNELS_CUDA_ATTENTION_CALLS_H_

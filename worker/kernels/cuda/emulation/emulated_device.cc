#include "worker/kernels/cuda/emulation/emulated_device.h"

#include <cstring>

#include "absl/strings/str_cat.h"
#include "worker/kernels/cuda/emulation/card_memory.h"
#include "worker/kernels/cuda/emulation/emulated_kernels.h"

namespace renga::kernels::cuda::emulation {
namespace {

class EmulatedDevice : public Device {
 public:
  EmulatedDevice(Turns turns, TensorCores tensor_cores)
      : turns_(turns), tensor_cores_(tensor_cores) {}
  bool has_tensor_kernels() const override { return tensor_cores_ != TensorCores::kNone; }
  bool has_tensor_cores() const override { return has_tensor_kernels(); }

  absl::StatusOr<std::byte*> Allocate(int64_t bytes) override {
    std::byte* const memory = memory_.Allocate(bytes);
    if (memory == nullptr) {
      return absl::ResourceExhaustedError(
          absl::StrCat("the emulated card has ", memory_.free_bytes(), " bytes left, not ", bytes));
    }
    const CardMemory::Access access(memory_);
    std::memset(memory, 0xff, static_cast<size_t>(bytes));
    return memory;
  }
  void Free(std::byte* memory) override { memory_.Free(memory); }

  absl::Status Upload(std::span<const std::byte> host, std::byte* to) override {
    const CardMemory::Access access(memory_);
    if (!host.empty()) std::memcpy(to, host.data(), host.size());
    return absl::OkStatus();
  }
  absl::Status Copy(const std::byte* from, std::byte* to, int64_t bytes) override {
    const CardMemory::Access access(memory_);
    std::memcpy(to, from, static_cast<size_t>(bytes));
    return absl::OkStatus();
  }
  absl::Status Download(const std::byte* from, std::span<std::byte> host) override {
    const CardMemory::Access access(memory_);
    if (!host.empty()) std::memcpy(host.data(), from, host.size());
    return absl::OkStatus();
  }

  absl::Status Launch(Kernel kernel, const LaunchShape& shape,
                      std::span<const std::byte> args) override {
    const EmulatedKernel& code = KernelOf(kernel);
    if (shape.threads > code.threads || args.size() != code.args_bytes) {
      return absl::InternalError(absl::StrCat(
          "kernel ", static_cast<int>(kernel), " takes ", code.args_bytes, " bytes and at most ",
          code.threads, " threads, not ", args.size(), " and ", shape.threads));
    }
    const Grid grid = {.blocks_x = shape.blocks_x,
                       .blocks_y = shape.blocks_y,
                       .threads = shape.threads,
                       .mma_rows = tensor_cores_ == TensorCores::kOf8Rows ? 8 : 16};
    const CardMemory::Access access(memory_);
    return RunGrid(code.function, args.data(), grid, turns_, memory_.range());
  }
  absl::Status Synchronize() override { return absl::OkStatus(); }

 private:
  const Turns turns_;
  const TensorCores tensor_cores_;
  CardMemory memory_{kCardBytes};
};

}  // namespace

std::unique_ptr<Device> CreateEmulatedDevice(Turns turns, TensorCores tensor_cores) {
  return std::make_unique<EmulatedDevice>(turns, tensor_cores);
}

}  // namespace renga::kernels::cuda::emulation

// Device memory that is freed with its owner, and the two ways the backend keeps some: working
// memory that grows, and tables that are uploaded only when they change.
#ifndef RENGA_WORKER_KERNELS_CUDA_DEVICE_MEMORY_H_
#define RENGA_WORKER_KERNELS_CUDA_DEVICE_MEMORY_H_

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "base/status_macros.h"
#include "worker/kernels/cuda/device.h"

namespace renga::kernels::cuda {

// Movable; keeps the device alive.
class DeviceMemory {
 public:
  DeviceMemory() = default;
  DeviceMemory(DeviceMemory&& other) noexcept { *this = std::move(other); }
  DeviceMemory& operator=(DeviceMemory&& other) noexcept {
    std::swap(device_, other.device_);
    std::swap(data_, other.data_);
    std::swap(bytes_, other.bytes_);
    return *this;
  }
  ~DeviceMemory() { Release(); }

  // `bytes` >= 0; some memory even for none.
  static absl::StatusOr<DeviceMemory> Allocate(std::shared_ptr<Device> device, int64_t bytes) {
    RENGA_ASSIGN_OR_RETURN(std::byte* const data, device->Allocate(std::max<int64_t>(bytes, 1)));
    DeviceMemory memory;
    memory.device_ = std::move(device);
    memory.data_ = data;
    memory.bytes_ = bytes;
    return memory;
  }

  // Gives the memory back at once.
  void Release() {
    if (data_ != nullptr) device_->Free(data_);
    data_ = nullptr;
    bytes_ = 0;
  }

  std::byte* data() const { return data_; }
  int64_t bytes() const { return bytes_; }

 private:
  std::shared_ptr<Device> device_;
  std::byte* data_ = nullptr;
  int64_t bytes_ = 0;
};

// Working memory; what was in it is lost when it grows.
class DeviceScratch {
 public:
  absl::StatusOr<std::byte*> Reserve(const std::shared_ptr<Device>& device, int64_t bytes) {
    if (bytes > memory_.bytes() || memory_.data() == nullptr) {
      memory_.Release();  // first: there may not be room for both
      RENGA_ASSIGN_OR_RETURN(memory_, DeviceMemory::Allocate(device, bytes));
    }
    return memory_.data();
  }

 private:
  DeviceMemory memory_;
};

// A copy of a host table of plain structs. All layers of a step have the same tables, so most calls
// find theirs on the device already.
class DeviceTable {
 public:
  template <class T>
  absl::StatusOr<const T*> Put(const std::shared_ptr<Device>& device, std::span<const T> table) {
    const std::span<const std::byte> bytes = std::as_bytes(table);
    if (!std::equal(bytes.begin(), bytes.end(), held_.begin(), held_.end())) {
      held_.clear();  // nothing is held if the rest fails
      RENGA_ASSIGN_OR_RETURN(std::byte* const to,
                             scratch_.Reserve(device, static_cast<int64_t>(bytes.size())));
      RENGA_RETURN_IF_ERROR(device->Upload(bytes, to));
      data_ = to;
      held_.assign(bytes.begin(), bytes.end());
      ++changes_;
    }
    return reinterpret_cast<const T*>(data_);
  }
  // Grows when the table changes.
  int64_t changes() const { return changes_; }

 private:
  DeviceScratch scratch_;
  const std::byte* data_ = nullptr;
  std::vector<std::byte> held_;
  int64_t changes_ = 0;
};

}  // namespace renga::kernels::cuda

#endif  // RENGA_WORKER_KERNELS_CUDA_DEVICE_MEMORY_H_

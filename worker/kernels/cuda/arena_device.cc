#include "worker/kernels/cuda/arena_device.h"

#include <iterator>
#include <utility>

#include "base/status_macros.h"

namespace renga::kernels::cuda {
namespace {

class ArenaDevice : public Device {
 public:
  ArenaDevice(std::unique_ptr<Device> device, std::byte* memory, int64_t bytes)
      : device_(std::move(device)), memory_(memory), bytes_(bytes), pieces_(bytes) {}
  ~ArenaDevice() override { device_->Free(memory_); }

  bool has_tensor_kernels() const override { return device_->has_tensor_kernels(); }
  bool has_tensor_cores() const override { return device_->has_tensor_cores(); }

  absl::StatusOr<std::byte*> Allocate(int64_t bytes) override {
    if (const std::optional<int64_t> begin = pieces_.Take(bytes)) return memory_ + *begin;
    return device_->Allocate(bytes);
  }
  // Nothing is waited for: work that is queued comes before whatever uses the piece next.
  void Free(std::byte* memory) override {
    const bool inside = memory >= memory_ && memory < memory_ + bytes_;
    if (!inside || !pieces_.GiveBack(memory - memory_)) device_->Free(memory);
  }

  absl::Status Upload(std::span<const std::byte> host, std::byte* to) override {
    return device_->Upload(host, to);
  }
  absl::Status Copy(const std::byte* from, std::byte* to, int64_t bytes) override {
    return device_->Copy(from, to, bytes);
  }
  absl::Status Download(const std::byte* from, std::span<std::byte> host) override {
    return device_->Download(from, host);
  }
  absl::Status Launch(Kernel kernel, const LaunchShape& shape,
                      std::span<const std::byte> args) override {
    return device_->Launch(kernel, shape, args);
  }
  absl::Status Synchronize() override { return device_->Synchronize(); }
  absl::StatusOr<bool> IsIdle() override { return device_->IsIdle(); }
  absl::StatusOr<void*> Stream() override { return device_->Stream(); }

 private:
  const std::unique_ptr<Device> device_;
  std::byte* const memory_;
  const int64_t bytes_;
  ArenaPieces pieces_;
};

}  // namespace

ArenaPieces::ArenaPieces(int64_t bytes) : free_bytes_(bytes / kAlignment * kAlignment) {
  if (free_bytes_ > 0) gaps_[0] = free_bytes_;
}

std::optional<int64_t> ArenaPieces::Take(int64_t bytes) {
  if (bytes < 1 || bytes > free_bytes_) return std::nullopt;
  const int64_t wanted = (bytes + kAlignment - 1) / kAlignment * kAlignment;
  auto best = gaps_.end();
  for (auto gap = gaps_.begin(); gap != gaps_.end(); ++gap) {
    if (gap->second >= wanted && (best == gaps_.end() || gap->second < best->second)) best = gap;
  }
  if (best == gaps_.end()) return std::nullopt;
  const auto [begin, size] = *best;
  gaps_.erase(best);
  if (size > wanted) gaps_[begin + wanted] = size - wanted;
  pieces_[begin] = wanted;
  free_bytes_ -= wanted;
  return begin;
}

bool ArenaPieces::GiveBack(int64_t begin) {
  const auto piece = pieces_.find(begin);
  if (piece == pieces_.end()) return false;
  free_bytes_ += piece->second;
  auto gap = gaps_.emplace(begin, piece->second).first;
  pieces_.erase(piece);
  if (const auto next = std::next(gap);
      next != gaps_.end() && gap->first + gap->second == next->first) {
    gap->second += next->second;
    gaps_.erase(next);
  }
  if (gap == gaps_.begin()) return true;
  const auto before = std::prev(gap);
  if (before->first + before->second == gap->first) {
    before->second += gap->second;
    gaps_.erase(gap);
  }
  return true;
}

absl::StatusOr<std::unique_ptr<Device>> CreateArenaDevice(std::unique_ptr<Device> device,
                                                          int64_t bytes) {
  RENGA_ASSIGN_OR_RETURN(std::byte* const memory, device->Allocate(bytes));
  return std::make_unique<ArenaDevice>(std::move(device), memory, bytes);
}

}  // namespace renga::kernels::cuda

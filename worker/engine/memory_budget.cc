#include "worker/engine/memory_budget.h"

#include <algorithm>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "base/byte_size.h"

namespace renga::engine {

MemoryBudget::Reservation::Reservation(Reservation&& other) noexcept
    : budget_(std::exchange(other.budget_, nullptr)), bytes_(std::exchange(other.bytes_, 0)) {}

MemoryBudget::Reservation& MemoryBudget::Reservation::operator=(Reservation&& other) noexcept {
  if (this != &other) {
    if (budget_ != nullptr) budget_->Release(bytes_);
    budget_ = std::exchange(other.budget_, nullptr);
    bytes_ = std::exchange(other.bytes_, 0);
  }
  return *this;
}

MemoryBudget::Reservation::~Reservation() {
  if (budget_ != nullptr) budget_->Release(bytes_);
}

absl::StatusOr<MemoryBudget::Reservation> MemoryBudget::Reserve(int64_t bytes,
                                                                absl::string_view what) {
  if (bytes < 0) {
    return absl::InvalidArgumentError(absl::StrCat("negative size for ", what, ": ", bytes));
  }
  absl::MutexLock lock(&mutex_);
  const int64_t free_bytes = std::max<int64_t>(0, total_bytes_ - used_bytes_);
  if (bytes > free_bytes) {
    return absl::ResourceExhaustedError(
        absl::StrCat("not enough memory for ", what, ": needs ", base::FormatByteSize(bytes), ", ",
                     base::FormatByteSize(free_bytes), " left of the ",
                     base::FormatByteSize(total_bytes_), " offered"));
  }
  used_bytes_ += bytes;
  return Reservation(this, bytes);
}

void MemoryBudget::SetTotal(int64_t total_bytes) {
  absl::MutexLock lock(&mutex_);
  total_bytes_ = total_bytes;
}

int64_t MemoryBudget::total_bytes() const {
  absl::MutexLock lock(&mutex_);
  return total_bytes_;
}

int64_t MemoryBudget::used_bytes() const {
  absl::MutexLock lock(&mutex_);
  return used_bytes_;
}

void MemoryBudget::Release(int64_t bytes) {
  absl::MutexLock lock(&mutex_);
  used_bytes_ -= bytes;
}

}  // namespace renga::engine

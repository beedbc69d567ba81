// Memory that grows to what was wanted most and is used again in the next call.
#ifndef RENGA_WORKER_KERNELS_CPU_WORKING_MEMORY_H_
#define RENGA_WORKER_KERNELS_CPU_WORKING_MEMORY_H_

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <memory>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"

namespace renga::kernels::cpu {

class WorkingMemory {
 public:
  // At least so many bytes, at an address that 64 divides; what was in it is lost where it grows.
  // kResourceExhausted when the system has not that much.
  absl::Status Reserve(int64_t wanted) {
    if (wanted <= bytes_) return absl::OkStatus();
    const int64_t rounded = (wanted + 63) / 64 * 64;
    data_.reset();
    bytes_ = 0;
    data_.reset(static_cast<std::byte*>(std::aligned_alloc(64, static_cast<size_t>(rounded))));
    if (data_ == nullptr) {
      return absl::ResourceExhaustedError(
          absl::StrCat("no working memory of ", rounded, " bytes for the CPU backend"));
    }
    bytes_ = rounded;
    return absl::OkStatus();
  }

  std::byte* data() const { return data_.get(); }

 private:
  struct Free {
    void operator()(std::byte* p) const { std::free(p); }
  };
  std::unique_ptr<std::byte, Free> data_;
  int64_t bytes_ = 0;
};

}  // namespace renga::kernels::cpu

#endif  // RENGA_WORKER_KERNELS_CPU_WORKING_MEMORY_H_

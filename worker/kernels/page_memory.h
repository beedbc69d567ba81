// Memory straight from the system, for weights, caches of keys and values, and working memory.
#ifndef RENGA_WORKER_KERNELS_PAGE_MEMORY_H_
#define RENGA_WORKER_KERNELS_PAGE_MEMORY_H_

#include <cstddef>
#include <cstdint>

#include "absl/status/statusor.h"

namespace renga::kernels {

// Zero-filled, on huge pages where they fit: a matrix is read from end to end for every token, and
// small pages would miss the TLB all the way. Pages take memory from their first use on.
class PageMemory {
 public:
  // kResourceExhausted when the system refuses. `bytes` >= 1.
  static absl::StatusOr<PageMemory> Allocate(int64_t bytes);
  PageMemory(PageMemory&& other) noexcept;
  PageMemory& operator=(PageMemory&& other) noexcept;
  ~PageMemory();

  std::byte* data() const { return data_; }

 private:
  PageMemory(std::byte* data, int64_t bytes) : data_(data), bytes_(bytes) {}
  std::byte* data_;
  int64_t bytes_;
};

}  // namespace renga::kernels

#endif  // RENGA_WORKER_KERNELS_PAGE_MEMORY_H_

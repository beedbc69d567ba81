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
  // Bytes of one; memory of fewer is on small pages.
  static constexpr int64_t kHugePage = int64_t{2} << 20;

  // kResourceExhausted when the system refuses. `bytes` >= 1.
  static absl::StatusOr<PageMemory> Allocate(int64_t bytes);
  PageMemory(PageMemory&& other) noexcept;
  PageMemory& operator=(PageMemory&& other) noexcept;
  ~PageMemory();

  std::byte* data() const { return data_; }

  // Has the system clear [begin, end) now, where it can, not when it is first written. `begin` is a
  // multiple of kHugePage, `end` at most what was allocated. Threads may do so side by side.
  void Populate(int64_t begin, int64_t end) const;

 private:
  PageMemory(std::byte* data, int64_t bytes) : data_(data), bytes_(bytes) {}
  std::byte* data_;
  int64_t bytes_;
};

}  // namespace renga::kernels

#endif  // RENGA_WORKER_KERNELS_PAGE_MEMORY_H_

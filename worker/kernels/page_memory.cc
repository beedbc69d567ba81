#include "worker/kernels/page_memory.h"

#include <sys/mman.h>

#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"

namespace renga::kernels {
namespace {

constexpr int64_t kHugePage = int64_t{2} << 20;

}  // namespace

absl::StatusOr<PageMemory> PageMemory::Allocate(int64_t bytes) {
  const bool huge = bytes >= kHugePage;
  const size_t mapped = static_cast<size_t>(bytes + (huge ? kHugePage : 0));
  void* memory = mmap(nullptr, mapped, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (memory == MAP_FAILED) {
    return absl::ResourceExhaustedError(absl::StrCat("the system has no ", bytes, " bytes left"));
  }
  auto* data = static_cast<std::byte*>(memory);
  if (!huge) return PageMemory(data, bytes);
  // Huge pages begin at multiples of their size: give back what lies before and behind.
  const int64_t page = 4096;
  const auto address = reinterpret_cast<uintptr_t>(data);
  const int64_t before = static_cast<int64_t>((kHugePage - address % kHugePage) % kHugePage);
  if (before > 0) munmap(data, static_cast<size_t>(before));
  data += before;
  const int64_t kept = (bytes + page - 1) / page * page;
  const int64_t behind = static_cast<int64_t>(mapped) - before - kept;
  if (behind >= page) munmap(data + kept, static_cast<size_t>(behind));
#ifdef MADV_HUGEPAGE
  // Where the system has none, small pages do.
  madvise(data, static_cast<size_t>(kept), MADV_HUGEPAGE);
#endif
  return PageMemory(data, bytes);
}

PageMemory::PageMemory(PageMemory&& other) noexcept
    : data_(std::exchange(other.data_, nullptr)), bytes_(other.bytes_) {}

PageMemory& PageMemory::operator=(PageMemory&& other) noexcept {
  std::swap(data_, other.data_);
  std::swap(bytes_, other.bytes_);
  return *this;
}

PageMemory::~PageMemory() {
  if (data_ != nullptr) munmap(data_, static_cast<size_t>(bytes_));
}

}  // namespace renga::kernels

#include "worker/kernels/cuda/emulation/card_memory.h"

#include <sys/mman.h>

#include <cstdlib>

namespace renga::kernels::cuda::emulation {
namespace {

constexpr int64_t kAlignment = 256;

#if defined(__SANITIZE_ADDRESS__)
constexpr bool kOwnAddresses = false;
#else
constexpr bool kOwnAddresses = true;
#endif

}  // namespace

CardMemory::CardMemory(int64_t bytes) : bytes_(bytes) {
  if (!kOwnAddresses) return;
  void* const mapped = ::mmap(nullptr, static_cast<size_t>(bytes), PROT_NONE,
                              MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (mapped != MAP_FAILED) begin_ = static_cast<std::byte*>(mapped);
}

CardMemory::~CardMemory() {
  if (begin_ != nullptr) ::munmap(begin_, static_cast<size_t>(bytes_));
  if (kOwnAddresses) return;
  for (const auto& [memory, bytes] : pieces_) std::free(memory);
}

std::byte* CardMemory::Allocate(int64_t bytes) {
  if (bytes > free_bytes() - kAlignment) return nullptr;
  const int64_t rounded = (bytes + kAlignment - 1) / kAlignment * kAlignment;
  std::byte* found = nullptr;
  if (kOwnAddresses) {
    if (begin_ == nullptr) return nullptr;
    found = begin_;  // the first gap that is large enough
    for (const auto& [piece, size] : pieces_) {
      if (piece - found >= rounded) break;
      found = piece + size;
    }
    if (begin_ + bytes_ - found < rounded) return nullptr;
  } else {
    // As many bytes as were asked for: the sanitizer looks at what lies behind them.
    void* memory = nullptr;
    if (posix_memalign(&memory, kAlignment, static_cast<size_t>(bytes)) != 0) return nullptr;
    found = static_cast<std::byte*>(memory);
  }
  pieces_[found] = rounded;
  used_bytes_ += rounded;
  return found;
}

void CardMemory::Free(std::byte* memory) {
  const auto piece = pieces_.find(memory);
  if (piece == pieces_.end()) return;
  used_bytes_ -= piece->second;
  pieces_.erase(piece);
  if (!kOwnAddresses) std::free(memory);
}

void CardMemory::Protect(bool on) {
  if (begin_ == nullptr) return;
  ::mprotect(begin_, static_cast<size_t>(bytes_), on ? PROT_NONE : PROT_READ | PROT_WRITE);
}

}  // namespace renga::kernels::cuda::emulation

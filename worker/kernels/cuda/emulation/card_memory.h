// The memory of an imitated card: a range of addresses that only its kernels and copies may touch,
// so that a program that takes the card's addresses for its own ends there and then.
//
// Under the address sanitizer it is ordinary memory instead: what lies outside of each piece is
// watched then.
#ifndef RENGA_WORKER_KERNELS_CUDA_EMULATION_CARD_MEMORY_H_
#define RENGA_WORKER_KERNELS_CUDA_EMULATION_CARD_MEMORY_H_

#include <cstddef>
#include <cstdint>
#include <map>

#include "worker/kernels/cuda/emulation/threads.h"

namespace renga::kernels::cuda::emulation {

// Used by one thread. All pieces must be given back before its end, or are lost with it.
class CardMemory {
 public:
  explicit CardMemory(int64_t bytes);
  ~CardMemory();
  CardMemory(const CardMemory&) = delete;
  CardMemory& operator=(const CardMemory&) = delete;

  // 256-byte aligned, `bytes` >= 1; null when there is no such piece left.
  std::byte* Allocate(int64_t bytes);
  // An address from Allocate; others are ignored.
  void Free(std::byte* memory);
  int64_t free_bytes() const { return bytes_ - used_bytes_; }

  // While one lives, the memory may be touched.
  class Access {
   public:
    explicit Access(CardMemory& memory) : memory_(memory) { memory_.Protect(false); }
    ~Access() { memory_.Protect(true); }
    Access(const Access&) = delete;
    Access& operator=(const Access&) = delete;

   private:
    CardMemory& memory_;
  };

  // Where kernels may load from; empty when that is not watched.
  MemoryRange range() const { return {begin_, begin_ == nullptr ? nullptr : begin_ + bytes_}; }

 private:
  void Protect(bool on);

  const int64_t bytes_;
  int64_t used_bytes_ = 0;
  std::byte* begin_ = nullptr;            // of the range of addresses
  std::map<std::byte*, int64_t> pieces_;  // and their bytes, rounded up
};

}  // namespace renga::kernels::cuda::emulation

#endif  // RENGA_WORKER_KERNELS_CUDA_EMULATION_CARD_MEMORY_H_

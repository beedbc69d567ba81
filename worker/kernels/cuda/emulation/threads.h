// What a kernel sees of the device when it runs on the host: its place in the grid, barriers,
// shuffles, shared memory. words.h gives them the names that the device's own have.
//
// The threads of a block are fibers of one host thread, so blocks run one after the other and a
// test always sees the same order. What a kernel does wrong and a device might forgive is an error
// here: a barrier that some threads never reach, an address that is no multiple of what is loaded.
#ifndef RENGA_WORKER_KERNELS_CUDA_EMULATION_THREADS_H_
#define RENGA_WORKER_KERNELS_CUDA_EMULATION_THREADS_H_

#include <cstddef>
#include <cstdint>
#include <cstring>

#include "absl/status/status.h"
#include "worker/kernels/cuda/emulation/tensor_model.h"

namespace renga::kernels::cuda::emulation {

struct Place {
  int thread = 0;
  int64_t block_x = 0;
  int64_t block_y = 0;
  int64_t block_threads = 0;
  int mma_rows = 16;
};
// Of the fiber that runs; null outside of kernels.
inline thread_local const Place* current_place = nullptr;

inline int ThreadIndex() { return current_place->thread; }
inline int64_t BlockX() { return current_place->block_x; }
inline int64_t BlockY() { return current_place->block_y; }
inline int64_t BlockThreads() { return current_place->block_threads; }

// Wait for all threads of the block, or of the warp.
void SyncBlock();
void SyncWarp();

// The value of lane `lane ^ mask`; all lanes of the warp must ask.
uint64_t ExchangeBits(uint64_t bits, int mask);
template <class T>
T ShuffleXor(T value, int mask) {
  static_assert(sizeof(T) <= sizeof(uint64_t));
  uint64_t bits = 0;
  std::memcpy(&bits, &value, sizeof(T));
  bits = ExchangeBits(bits, mask);
  std::memcpy(&value, &bits, sizeof(T));
  return value;
}

// The values of all lanes, in order; all lanes must ask.
void GatherBits(uint64_t bits, uint64_t* all);
template <class T>
void GatherWarp(T value, T* all) {
  uint64_t bits = 0;
  std::memcpy(&bits, &value, sizeof(T));
  uint64_t gathered[32];
  GatherBits(bits, gathered);
  for (int lane = 0; lane < 32; ++lane) std::memcpy(all + lane, gathered + lane, sizeof(T));
}

// The instruction mma over the warp's fragments (tensor_model.h); all lanes must come.
void MultiplyInWarp(const ByteFragments& mine, int depth, int32_t (&sums)[4]);
void MultiplyHalfInWarp(int32_t a, int32_t b, int32_t& first, int32_t& second);
void MultiplyHalvesInWarp(const ByteFragments& mine, int depth, float (&sums)[4]);
// Rows of the instruction with int8 that the card has.
inline int MmaRows() { return current_place->mma_rows; }

// Every thread's n-th call gives the same memory, filled with bytes of 0xff (NaN) for each block.
void* SharedMemory(size_t bytes);

// Addresses of a card; none at all when `begin` is null.
struct MemoryRange {
  const std::byte* begin = nullptr;
  const std::byte* end = nullptr;
};

// Ends the launch with an error unless `at` is a multiple of `alignment`, which is the load's size,
// and the card's own where that is known.
void CheckLoad(const void* at, size_t alignment);

// In which order fibers take their turns: a kernel without races gives the same bits in both.
enum class Turns { kForwards, kBackwards };

using KernelFunction = void (*)(const void* args);

struct Grid {
  int64_t blocks_x = 1;
  int64_t blocks_y = 1;
  int threads = 1;    // of a block, a multiple of 32
  int mma_rows = 16;  // or 8, as cards of 7.5
};

// Runs all blocks. Loads are from `memory`, if that is not empty. kInternal says what the kernel
// did wrong; its memory is then as it was left.
absl::Status RunGrid(KernelFunction kernel, const void* args, const Grid& grid, Turns turns,
                     const MemoryRange& memory = {});

}  // namespace renga::kernels::cuda::emulation

#endif  // RENGA_WORKER_KERNELS_CUDA_EMULATION_THREADS_H_

// What a card's units give at most, for the benchmark: products of registers that are independent
// of each other and of memory.
#ifndef RENGA_WORKER_KERNELS_CUDA_DEVICE_PEAK_H_
#define RENGA_WORKER_KERNELS_CUDA_DEVICE_PEAK_H_

#include <cstdint>

#include "worker/kernels/cuda/device/words.h"
#include "worker/kernels/cuda/kernel_list.h"

namespace renga::kernels::cuda {

constexpr int kPeakSums = 8;  // of a thread, so that none waits for the one before

// kPeakDp4aOperations for each round and thread.
RENGA_DEVICE void RunPeakDp4a(const PeakArgs& args) {
  int32_t sums[kPeakSums] = {};
  const int32_t a = ThreadIndex();
  for (int32_t round = 0; round < args.rounds; ++round) {
    RENGA_UNROLL
    for (int i = 0; i < kPeakSums; ++i) sums[i] = Dp4a(a, round, sums[i]);
  }
  int32_t all = 0;
  RENGA_UNROLL
  for (int i = 0; i < kPeakSums; ++i) all ^= sums[i];
  args.out[BlockX() * BlockThreads() + ThreadIndex()] = all;
}

// kPeakMmaOperations for each round and thread.
RENGA_DEVICE void RunPeakMma(const PeakArgs& args) {
#if RENGA_TENSOR_CORES
  int32_t sums[kPeakSums][4] = {};
  const int32_t a[4] = {ThreadIndex(), 1, 2, 3};
  for (int32_t round = 0; round < args.rounds; ++round) {
    const int32_t b[2] = {round, ThreadIndex()};
    RENGA_UNROLL
    for (int i = 0; i < kPeakSums; ++i) MmaBytes32(a, b, sums[i]);
  }
  int32_t all = 0;
  RENGA_UNROLL
  for (int i = 0; i < kPeakSums; ++i) all ^= sums[i][0] ^ sums[i][1] ^ sums[i][2] ^ sums[i][3];
  args.out[BlockX() * BlockThreads() + ThreadIndex()] = all;
#endif
}

}  // namespace renga::kernels::cuda

#endif  // RENGA_WORKER_KERNELS_CUDA_DEVICE_PEAK_H_

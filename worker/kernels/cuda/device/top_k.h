// The best columns of rows of logits, and their softmax normaliser.
//
// A row is cut into chunks of kTopChunk columns, a block each; the host merges the chunks' answers.
#ifndef RENGA_WORKER_KERNELS_CUDA_DEVICE_TOP_K_H_
#define RENGA_WORKER_KERNELS_CUDA_DEVICE_TOP_K_H_

#include <cstdint>

#include "worker/kernels/cuda/device/words.h"
#include "worker/kernels/cuda/kernel_list.h"
#include "worker/kernels/cuda/launch_shapes.h"
#include "worker/kernels/cuda/top_key.h"

namespace renga::kernels::cuda {

constexpr int kTopWarps = kTopThreads / kWarp;
constexpr int kTopNumbers = kTopChunk / kTopThreads;  // of a thread

// The logit of a column that is not there, or masked.
RENGA_DEVICE float NoLogit() { return BitsToFloat(0xff800000u); }

// The largest number of the block, NaN left out; `scratch` has a place for each warp.
RENGA_DEVICE float BlockMax(float value, float* scratch) {
  value = WarpMax(value);
  if (Lane() == 0) scratch[WarpIndex()] = value;
  SyncBlock();
  for (int warp = 0; warp < kTopWarps; ++warp) value = Max(value, scratch[warp]);
  return value;
}

// In one order for every row: lanes, then warps.
RENGA_DEVICE double BlockSum(double value, double* scratch) {
  value = WarpSum(value);
  if (Lane() == 0) scratch[WarpIndex()] = value;
  SyncBlock();
  value = 0;
  for (int warp = 0; warp < kTopWarps; ++warp) value += scratch[warp];
  return value;
}

// `exp(logit - largest)` of each of a thread's columns, added up.
RENGA_DEVICE double SumExponentials(const float (&logits)[kTopNumbers], float largest) {
  double sum = 0;
  RENGA_UNROLL
  for (int i = 0; i < kTopNumbers; ++i) {
    sum += logits[i] == NoLogit() ? 0.0 : static_cast<double>(expf(logits[i] - largest));
  }
  return sum;
}

// This thread's best key that is left.
RENGA_DEVICE uint64_t BestOf(const uint64_t (&keys)[kTopNumbers]) {
  uint64_t best = 0;
  RENGA_UNROLL
  for (int i = 0; i < kTopNumbers; ++i) best = keys[i] > best ? keys[i] : best;
  return best;
}

RENGA_DEVICE void FindTopOfChunk(const TopKArgs& args) {
  RENGA_SHARED(float, maxima, kTopWarps);
  RENGA_SHARED(double, totals, kTopWarps);
  RENGA_SHARED(uint64_t, winners, 2 * kTopWarps);
  const int64_t chunks = (args.columns + kTopChunk - 1) / kTopChunk;
  const int64_t row = BlockX() / chunks;
  const int64_t first = BlockX() % chunks * kTopChunk;
  float logits[kTopNumbers];
  uint64_t keys[kTopNumbers];
  float largest = NoLogit();
  RENGA_UNROLL
  for (int i = 0; i < kTopNumbers; ++i) {
    const int64_t column = first + i * kTopThreads + ThreadIndex();
    const bool inside = column < args.columns;
    logits[i] = inside ? args.logits[row * args.stride + column] : NoLogit();
    keys[i] = inside ? TopKey(FloatToBits(logits[i]), static_cast<uint32_t>(column)) : 0;
    largest = Max(largest, logits[i]);
  }
  largest = BlockMax(largest, maxima);
  const double sum = BlockSum(SumExponentials(logits, largest), totals);
  if (ThreadIndex() == 0) {
    args.largest[BlockX()] = largest;
    args.sums[BlockX()] = sum;
  }
  uint64_t mine = BestOf(keys);
  for (int64_t k = 0; k < args.k; ++k) {
    uint64_t best = WarpMax(mine);
    // Two sets of places in turn: a slow warp may still read those of the round before.
    uint64_t* const round = winners + k % 2 * kTopWarps;
    if (Lane() == 0) round[WarpIndex()] = best;
    SyncBlock();
    for (int warp = 0; warp < kTopWarps; ++warp) best = round[warp] > best ? round[warp] : best;
    if (ThreadIndex() == 0) args.keys[BlockX() * args.k + k] = best;
    if (best == 0 || mine != best) continue;  // keys are all different
    RENGA_UNROLL
    for (int i = 0; i < kTopNumbers; ++i) keys[i] = keys[i] == best ? 0 : keys[i];
    mine = BestOf(keys);
  }
}

}  // namespace renga::kernels::cuda

#endif  // RENGA_WORKER_KERNELS_CUDA_DEVICE_TOP_K_H_

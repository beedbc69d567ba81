// Logits and their columns as whole numbers whose order is that of TopRow: the larger logit first,
// among equals the lower column.
#ifndef RENGA_WORKER_KERNELS_CUDA_TOP_KEY_H_
#define RENGA_WORKER_KERNELS_CUDA_TOP_KEY_H_

#include <cstdint>

#include "worker/kernels/cuda/device/target.h"

namespace renga::kernels::cuda {

// Never 0. NaN counts as the lowest logit, zeros of both signs as equal.
RENGA_DEVICE uint64_t TopKey(uint32_t logit_bits, uint32_t column) {
  uint32_t bits = logit_bits;
  if ((bits & 0x7fffffffu) > 0x7f800000u) bits = 0xff800000u;
  if (bits == 0x80000000u) bits = 0;
  const uint32_t order = (bits & 0x80000000u) != 0 ? ~bits : bits | 0x80000000u;
  return static_cast<uint64_t>(order) << 32 | (0xffffffffu - column);
}

RENGA_DEVICE uint32_t TopKeyColumn(uint64_t key) {
  return 0xffffffffu - static_cast<uint32_t>(key);
}
RENGA_DEVICE uint32_t TopKeyLogitBits(uint64_t key) {
  const auto order = static_cast<uint32_t>(key >> 32);
  return (order & 0x80000000u) != 0 ? order & 0x7fffffffu : ~order;
}

}  // namespace renga::kernels::cuda

#endif  // RENGA_WORKER_KERNELS_CUDA_TOP_KEY_H_

// Where a matrix kernel's sums go.
#ifndef RENGA_WORKER_KERNELS_CPU_MATMUL_OUTPUT_H_
#define RENGA_WORKER_KERNELS_CPU_MATMUL_OUTPUT_H_

#include <cstdint>

#include "worker/kernels/cpu/kernel_table.h"

namespace renga::kernels::cpu {

// Writes one token's outputs for the rows of a panel, the bias added. The last panel of a matrix
// may have lanes beyond its rows; those are dropped.
template <class Isa>
[[gnu::always_inline]] inline void StoreSum(const MatmulTask& task, int64_t panel, int64_t token,
                                            typename Isa::F sum) {
  const int64_t row = panel * Isa::kLanes;
  float* out = task.out + token * task.out_stride + row;
  if (row + Isa::kLanes <= task.rows) {
    if (task.bias != nullptr) sum = Isa::AddF(sum, Isa::LoadF(task.bias + row));
    Isa::StoreF(out, sum);
    return;
  }
  float lanes[Isa::kLanes];
  Isa::StoreF(lanes, sum);
  for (int64_t i = 0; row + i < task.rows; ++i) {
    out[i] = task.bias != nullptr ? lanes[i] + task.bias[row + i] : lanes[i];
  }
}

}  // namespace renga::kernels::cpu

#endif  // RENGA_WORKER_KERNELS_CPU_MATMUL_OUTPUT_H_

// The best k of a row of logits.
#ifndef RENGA_WORKER_KERNELS_CPU_TOP_ROWS_H_
#define RENGA_WORKER_KERNELS_CPU_TOP_ROWS_H_

#include <cstdint>
#include <span>
#include <vector>

namespace renga::kernels::cpu {

// Columns of the k largest logits (fewer when there are fewer), largest first; among equals the
// lower column first. NaN counts as the lowest.
std::vector<int32_t> TopColumns(std::span<const float> logits, int64_t k);

}  // namespace renga::kernels::cpu

#endif  // RENGA_WORKER_KERNELS_CPU_TOP_ROWS_H_

// Joins what the TopK kernel found in the chunks of a row.
#ifndef RENGA_WORKER_KERNELS_CUDA_TOP_MERGE_H_
#define RENGA_WORKER_KERNELS_CUDA_TOP_MERGE_H_

#include <cstdint>
#include <span>

#include "worker/kernels/backend.h"

namespace renga::kernels::cuda {

// The best `k` of the chunks' keys (0 among them is none) into indices and logits.
void MergeTop(std::span<const uint64_t> keys, int64_t k, TopRow& row);
// The row's largest logit and sum of exponentials, from those of its chunks, in order.
void MergeNormaliser(std::span<const float> largest, std::span<const double> sums, TopRow& row);

}  // namespace renga::kernels::cuda

#endif  // RENGA_WORKER_KERNELS_CUDA_TOP_MERGE_H_

// The reference backend's ops other than Linear, on host memory. Shapes are already checked.
#ifndef RENGA_WORKER_KERNELS_REFERENCE_REFERENCE_OPS_H_
#define RENGA_WORKER_KERNELS_REFERENCE_REFERENCE_OPS_H_

#include <cstdint>
#include <span>

#include "worker/kernels/backend.h"

namespace renga::kernels::reference {

void RmsNorm(ConstRowsView in, const float* weight, float epsilon, RowsView out);
void HeadRmsNorm(RowsView rows, int64_t head_dim, const float* weight, float epsilon);
void Rope(RowsView rows, std::span<const int64_t> positions, const RopeArgs& args);
void StoreKv(ConstRowsView keys, ConstRowsView values, const KvCacheView& cache,
             std::span<const SequenceSlot> slots);
void Attention(const AttentionArgs& args);
void SiluGate(ConstRowsView gate, ConstRowsView up, RowsView out);
void GeluGate(ConstRowsView gate, ConstRowsView up, RowsView out);
void Add(ConstRowsView in, RowsView out);
TopRow TopK(std::span<const float> logits, int64_t k);

}  // namespace renga::kernels::reference

#endif  // RENGA_WORKER_KERNELS_REFERENCE_REFERENCE_OPS_H_

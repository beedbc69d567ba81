// Whether an op's shapes agree, said once for all backends: each returns kInvalidArgument with the
// numbers that disagree. Nothing is read but the views themselves, so the checks are cheap and
// work for device memory too.
#ifndef RENGA_WORKER_KERNELS_OP_CHECKS_H_
#define RENGA_WORKER_KERNELS_OP_CHECKS_H_

#include <cstdint>
#include <span>

#include "absl/status/status.h"
#include "worker/kernels/backend.h"

namespace renga::kernels {

// A valid type, rows and columns >= 1, columns a multiple of the block, bytes that fit int64.
absl::Status CheckMatrixShape(base::DataType type, int64_t rows, int64_t columns);
// `bytes` are whole rows that lie inside the matrix.
absl::Status CheckLoadRows(const WeightMatrix& matrix, int64_t first_row, size_t bytes);

absl::Status CheckRmsNorm(ConstRowsView in, const float* weight, RowsView out);
absl::Status CheckHeadRmsNorm(RowsView rows, int64_t head_dim, const float* weight);
absl::Status CheckLinear(ConstRowsView in, std::span<const LinearOutput> outputs);
absl::Status CheckRope(RowsView rows, std::span<const int64_t> positions, const RopeArgs& args);
absl::Status CheckStoreKv(ConstRowsView keys, ConstRowsView values, const KvCacheView& cache,
                          std::span<const SequenceSlot> slots);
absl::Status CheckAttention(const AttentionArgs& args);
absl::Status CheckSiluGate(ConstRowsView gate, ConstRowsView up, RowsView out);
absl::Status CheckGeluGate(ConstRowsView gate, ConstRowsView up, RowsView out);
absl::Status CheckAdd(ConstRowsView in, RowsView out);
// A row has at least one column: an empty one has no maximum.
absl::Status CheckTopK(ConstRowsView logits, std::span<const TopRow> result);

}  // namespace renga::kernels

#endif  // RENGA_WORKER_KERNELS_OP_CHECKS_H_

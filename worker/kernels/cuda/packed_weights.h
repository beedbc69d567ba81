// How matrices lie in device memory: the numbers of the file's blocks, sorted into planes whose
// parts are aligned, so that a lane loads 4, 8 or 16 bytes at once. Nothing is rounded, and nothing
// is added but what aligns planes and fills up rows of plain formats: budgets count a file's bytes.
//
// A group is 32 numbers of a row. Nibbles of a group are 16 bytes: numbers 0-15 in the low halves,
// 16-31 in the high ones. What each plane of a format holds is said beside its packer in
// packed_weights.cc, how it is read in device/formats.h.
#ifndef RENGA_WORKER_KERNELS_CUDA_PACKED_WEIGHTS_H_
#define RENGA_WORKER_KERNELS_CUDA_PACKED_WEIGHTS_H_

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>

#include "base/data_type.h"

namespace renga::kernels::cuda {

inline constexpr int kMostPlanes = 4;
// Planes begin at multiples of this.
inline constexpr int64_t kPlaneAlignment = 256;

// Where a matrix's planes begin in its memory, and bytes of a row in each (0: no such plane).
struct PlaneLayout {
  std::array<int64_t, kMostPlanes> offset = {};
  std::array<int64_t, kMostPlanes> row_bytes = {};
  int64_t bytes = 0;   // of the whole matrix
  int64_t groups = 0;  // of a row; the last may be filled up with zeros
};

// The shape has passed CheckMatrixShape. Sizes that would overflow become int64's largest.
PlaneLayout LayoutOf(base::DataType type, int64_t rows, int64_t columns);

// One row of the file's format into its places: planes[p] has layout.row_bytes[p] bytes.
void PackRow(base::DataType type, int64_t columns, std::span<const std::byte> row,
             const std::array<std::byte*, kMostPlanes>& planes);

}  // namespace renga::kernels::cuda

#endif  // RENGA_WORKER_KERNELS_CUDA_PACKED_WEIGHTS_H_

// Builds the kernel table of a path with tiles: another path's, but for products with matrices of
// quantised formats and BF16. `Path` as for TileMatmul (matmul_tiles.h).
#ifndef RENGA_WORKER_KERNELS_CPU_PATH_TILES_H_
#define RENGA_WORKER_KERNELS_CPU_PATH_TILES_H_

#include "base/data_type.h"
#include "worker/kernels/cpu/formats_256.h"
#include "worker/kernels/cpu/formats_32.h"
#include "worker/kernels/cpu/kernel_table.h"
#include "worker/kernels/cpu/matmul_tiles.h"
#include "worker/kernels/cpu/matmul_tiles_bf16.h"

namespace renga::kernels::cpu {

template <class Path, template <class Isa> class Format, base::DataType type>
constexpr FormatKernels TileKernelsOf() {
  using Matmul = TileMatmul<Path, Format<typename Path::Isa>, type>;
  return {Matmul::kActivations, &Matmul::Run};
}

template <class Path>
FormatKernels TileFormatKernelsOf(base::DataType type) {
  using base::DataType;
  switch (type) {
    case DataType::kInvalid:
    case DataType::kF32:
    case DataType::kF16:
      return Path::Vectors().format(type);
    case DataType::kBF16:
      return {Bf16TileMatmul<Path>::kActivations, &Bf16TileMatmul<Path>::Run};
    case DataType::kQ8_0:
      return TileKernelsOf<Path, Q8_0, DataType::kQ8_0>();
    case DataType::kQ4_0:
      return TileKernelsOf<Path, Q4_0, DataType::kQ4_0>();
    case DataType::kQ4_1:
      return TileKernelsOf<Path, Q4_1, DataType::kQ4_1>();
    case DataType::kQ5_0:
      return TileKernelsOf<Path, Q5_0, DataType::kQ5_0>();
    case DataType::kQ5_1:
      return TileKernelsOf<Path, Q5_1, DataType::kQ5_1>();
    case DataType::kQ2_K:
      return TileKernelsOf<Path, Q2K, DataType::kQ2_K>();
    case DataType::kQ3_K:
      return TileKernelsOf<Path, Q3K, DataType::kQ3_K>();
    case DataType::kQ4_K:
      return TileKernelsOf<Path, Q4K, DataType::kQ4_K>();
    case DataType::kQ5_K:
      return TileKernelsOf<Path, Q5K, DataType::kQ5_K>();
    case DataType::kQ6_K:
      return TileKernelsOf<Path, Q6K, DataType::kQ6_K>();
    case DataType::kIQ4_NL:
      return TileKernelsOf<Path, Iq4Nl, DataType::kIQ4_NL>();
    case DataType::kIQ4_XS:
      return TileKernelsOf<Path, Iq4Xs, DataType::kIQ4_XS>();
    case DataType::kR3:
      return TileKernelsOf<Path, R3, DataType::kR3>();
  }
  return {};
}

template <class Path>
CpuKernels TilePathKernels(const char* path_name) {
  CpuKernels kernels = Path::Vectors();
  kernels.path_name = path_name;
  kernels.format = &TileFormatKernelsOf<Path>;
  kernels.quantize = &TileQuantizer<Path>::Row;
  return kernels;
}

}  // namespace renga::kernels::cpu

#endif  // RENGA_WORKER_KERNELS_CPU_PATH_TILES_H_

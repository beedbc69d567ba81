// A weight matrix in device memory, in the planes of packed_weights.h.
#ifndef RENGA_WORKER_KERNELS_CUDA_CUDA_MATRIX_H_
#define RENGA_WORKER_KERNELS_CUDA_CUDA_MATRIX_H_

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "worker/kernels/backend.h"
#include "worker/kernels/cuda/device_memory.h"
#include "worker/kernels/cuda/kernel_list.h"
#include "worker/kernels/cuda/packed_weights.h"

namespace renga::kernels::cuda {

class CudaMatrix : public WeightMatrix {
 public:
  // The shape has passed CheckMatrixShape. kUnimplemented for more rows than a grid has.
  static absl::StatusOr<std::unique_ptr<CudaMatrix>> Create(std::shared_ptr<Device> device,
                                                            base::DataType type, int64_t rows,
                                                            int64_t columns);
  static int64_t Bytes(base::DataType type, int64_t rows, int64_t columns);

  base::DataType type() const override { return type_; }
  int64_t rows() const override { return rows_; }
  int64_t columns() const override { return columns_; }

  // Whole rows of the file's format, which have passed CheckLoadRows.
  absl::Status Load(Device& device, int64_t first_row, std::span<const std::byte> rows);

  bool quantized() const { return base::GetDataTypeInfo(type_).block_elements > 1; }
  MatrixPlanes planes() const;
  // The kernel that multiplies it with that many tokens.
  Kernel KernelFor(int64_t tokens) const;
  // Of a quantised type: the one that multiplies it with many tokens on tensor cores.
  Kernel TensorKernel() const;

 private:
  CudaMatrix(base::DataType type, int64_t rows, int64_t columns, PlaneLayout layout,
             DeviceMemory memory)
      : type_(type), rows_(rows), columns_(columns), layout_(layout), memory_(std::move(memory)) {}

  const base::DataType type_;
  const int64_t rows_;
  const int64_t columns_;
  const PlaneLayout layout_;
  DeviceMemory memory_;
};

}  // namespace renga::kernels::cuda

#endif  // RENGA_WORKER_KERNELS_CUDA_CUDA_MATRIX_H_

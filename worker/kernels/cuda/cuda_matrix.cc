#include "worker/kernels/cuda/cuda_matrix.h"

#include <algorithm>
#include <array>
#include <vector>

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "worker/kernels/cuda/launch_shapes.h"

namespace renga::kernels::cuda {
namespace {

using base::DataType;

// What is packed on the host at a time.
constexpr int64_t kPackBytes = int64_t{4} << 20;
constexpr int64_t kMostRows = int64_t{65535} * kTileRows;

// The first of a format's three kernels.
Kernel FirstKernel(DataType type) {
  switch (type) {
#define RENGA_FORMAT(Format) \
  case DataType::k##Format:  \
    return Kernel::kVectorOne_##Format;
    RENGA_CUDA_QUANTIZED_FORMATS(RENGA_FORMAT)
    RENGA_CUDA_PLAIN_FORMATS(RENGA_FORMAT)
#undef RENGA_FORMAT
    case DataType::kR3:  // refused by Create
    case DataType::kInvalid:
      break;
  }
  return Kernel::kCount;
}

// Of a quantised format.
Kernel TensorKernelOf(DataType type) {
  switch (type) {
#define RENGA_FORMAT(Format) \
  case DataType::k##Format:  \
    return Kernel::kTensor_##Format;
    RENGA_CUDA_QUANTIZED_FORMATS(RENGA_FORMAT)
#undef RENGA_FORMAT
    case DataType::kF32:
    case DataType::kF16:
    case DataType::kBF16:
    case DataType::kR3:
    case DataType::kInvalid:
      break;
  }
  return Kernel::kCount;
}

}  // namespace

int64_t CudaMatrix::Bytes(DataType type, int64_t rows, int64_t columns) {
  return LayoutOf(type, rows, columns).bytes;
}

absl::StatusOr<std::unique_ptr<CudaMatrix>> CudaMatrix::Create(std::shared_ptr<Device> device,
                                                               DataType type, int64_t rows,
                                                               int64_t columns) {
  if (type == DataType::kR3) {
    return absl::UnimplementedError(
        "the CUDA kernels do not know cold neurons of 3 bits: run without --approximate "
        "cold-neurons");
  }
  // Memory first: what is too large for a grid is too large for most cards.
  const PlaneLayout layout = LayoutOf(type, rows, columns);
  RENGA_ASSIGN_OR_RETURN(DeviceMemory memory,
                         DeviceMemory::Allocate(std::move(device), layout.bytes));
  if (rows > kMostRows) {
    return absl::UnimplementedError(
        absl::StrCat("the CUDA kernels know matrices of at most ", kMostRows, " rows"));
  }
  return std::unique_ptr<CudaMatrix>(
      new CudaMatrix(type, rows, columns, layout, std::move(memory)));
}

absl::Status CudaMatrix::Load(Device& device, int64_t first_row, std::span<const std::byte> rows) {
  RENGA_ASSIGN_OR_RETURN(const int64_t row_bytes, base::RowBytes(type_, columns_));
  const int64_t count = static_cast<int64_t>(rows.size()) / row_bytes;
  const int64_t step = std::max<int64_t>(1, kPackBytes / row_bytes);
  std::array<std::vector<std::byte>, kMostPlanes> packed;
  for (int64_t first = 0; first < count; first += step) {
    const int64_t now = std::min(step, count - first);
    for (size_t p = 0; p < kMostPlanes; ++p) {
      packed[p].resize(static_cast<size_t>(now * layout_.row_bytes[p]));
    }
    for (int64_t row = 0; row < now; ++row) {
      std::array<std::byte*, kMostPlanes> to = {};
      for (size_t p = 0; p < kMostPlanes; ++p)
        to[p] = packed[p].data() + row * layout_.row_bytes[p];
      PackRow(type_, columns_,
              rows.subspan(static_cast<size_t>((first + row) * row_bytes),
                           static_cast<size_t>(row_bytes)),
              to);
    }
    for (size_t p = 0; p < kMostPlanes; ++p) {
      std::byte* const at =
          memory_.data() + layout_.offset[p] + (first_row + first) * layout_.row_bytes[p];
      RENGA_RETURN_IF_ERROR(device.Upload(packed[p], at));
    }
  }
  return absl::OkStatus();
}

MatrixPlanes CudaMatrix::planes() const {
  MatrixPlanes planes = {};
  for (size_t p = 0; p < kMostPlanes; ++p) {
    planes.plane[p] = reinterpret_cast<const uint8_t*>(memory_.data() + layout_.offset[p]);
  }
  planes.rows = rows_;
  planes.groups = layout_.groups;
  return planes;
}

Kernel CudaMatrix::TensorKernel() const { return TensorKernelOf(type_); }

Kernel CudaMatrix::KernelFor(int64_t tokens) const {
  const int step = tokens == 1 ? 0 : tokens <= kFewTokens ? 1 : 2;
  return static_cast<Kernel>(static_cast<int>(FirstKernel(type_)) + step);
}

}  // namespace renga::kernels::cuda

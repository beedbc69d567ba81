#include "worker/kernels/cuda/cuda_backend.h"

#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "worker/kernels/cuda/attention_calls.h"
#include "worker/kernels/cuda/cuda_matrix.h"
#include "worker/kernels/cuda/device_memory.h"
#include "worker/kernels/cuda/kernel_launcher.h"
#include "worker/kernels/cuda/kernel_list.h"
#include "worker/kernels/cuda/launch_shapes.h"
#include "worker/kernels/cuda/linear_calls.h"
#include "worker/kernels/cuda/nccl_api.h"
#include "worker/kernels/cuda/nccl_communicator.h"
#include "worker/kernels/cuda/top_calls.h"
#include "worker/kernels/op_checks.h"

namespace renga::kernels {
namespace {

using cuda::CudaMatrix;
using cuda::DeviceMemory;
using cuda::Kernel;

class CudaBuffer : public Buffer {
 public:
  explicit CudaBuffer(DeviceMemory memory) : memory_(std::move(memory)) {}
  std::byte* data() override { return memory_.data(); }
  int64_t size_bytes() const override { return memory_.bytes(); }

 private:
  DeviceMemory memory_;
};

absl::Status CheckRange(const Buffer& buffer, int64_t offset, size_t bytes) {
  const int64_t size = buffer.size_bytes();
  if (offset < 0 || offset > size || bytes > static_cast<uint64_t>(size - offset)) {
    return absl::OutOfRangeError(
        absl::StrCat("bytes ", offset, " + ", bytes, " lie outside a buffer of ", size));
  }
  return absl::OkStatus();
}

class CudaBackend : public Backend {
 public:
  CudaBackend(std::shared_ptr<cuda::Device> device, CudaPath path)
      : device_(std::move(device)),
        launcher_(device_),
        path_(path == CudaPath::kBest && !device_->has_tensor_cores() ? CudaPath::kDp4a : path),
        linear_(device_, {.quantized = path_ != CudaPath::kDp4a, .f16 = path_ == CudaPath::kHalf}),
        attention_(device_),
        top_(device_) {}

  absl::string_view path_name() const override {
    return path_ == CudaPath::kHalf ? "cuda-half-1" : "cuda-dp4a-1";
  }

  absl::StatusOr<std::unique_ptr<Buffer>> Allocate(int64_t bytes) override;
  absl::Status Upload(std::span<const std::byte> host, Buffer& to, int64_t offset) override;
  absl::Status Download(Buffer& from, int64_t offset, std::span<std::byte> host) override;

  int64_t MatrixBytes(base::DataType type, int64_t rows, int64_t columns) const override;
  absl::StatusOr<std::unique_ptr<WeightMatrix>> CreateMatrix(base::DataType type, int64_t rows,
                                                             int64_t columns) override;
  absl::Status LoadRows(WeightMatrix& matrix, int64_t first_row,
                        std::span<const std::byte> rows) override;

  absl::Status RmsNorm(ConstRowsView in, const float* weight, float epsilon, RowsView out) override;
  absl::Status HeadRmsNorm(RowsView rows, int64_t head_dim, const float* weight,
                           float epsilon) override;
  absl::Status Linear(ConstRowsView in, std::span<const LinearOutput> outputs) override {
    return linear_.Linear(in, outputs);
  }
  absl::Status Rope(RowsView rows, std::span<const int64_t> positions,
                    const RopeArgs& args) override {
    return attention_.Rope(rows, positions, args);
  }
  absl::Status StoreKv(ConstRowsView keys, ConstRowsView values, const KvCacheView& cache,
                       std::span<const SequenceSlot> slots) override {
    return attention_.StoreKv(keys, values, cache, slots);
  }
  absl::Status Attention(const AttentionArgs& args) override { return attention_.Attention(args); }
  absl::Status SiluGate(ConstRowsView gate, ConstRowsView up, RowsView out) override {
    return Gate(Kernel::kSiluGate, gate, up, out);
  }
  absl::Status GeluGate(ConstRowsView gate, ConstRowsView up, RowsView out) override {
    return Gate(Kernel::kGeluGate, gate, up, out);
  }
  absl::Status Add(ConstRowsView in, RowsView out) override;
  absl::Status TopK(ConstRowsView logits, int64_t k, std::span<TopRow> result) override {
    return top_.TopK(logits, k, result);
  }

  absl::Status Synchronize() override { return device_->Synchronize(); }

  absl::StatusOr<std::unique_ptr<base::Communicator>> JoinDeviceGroup(
      base::Communicator& others) override {
    return cuda::JoinNcclGroup(cuda::LoadNccl(), device_, others);
  }

 private:
  absl::Status Gate(Kernel kernel, ConstRowsView gate, ConstRowsView up, RowsView out);

  const std::shared_ptr<cuda::Device> device_;
  const cuda::KernelLauncher launcher_;
  const CudaPath path_;
  cuda::LinearCalls linear_;
  cuda::AttentionCalls attention_;
  cuda::TopCalls top_;
};

// ---- Memory -------------------------------------------------------------------------------------

absl::StatusOr<std::unique_ptr<Buffer>> CudaBackend::Allocate(int64_t bytes) {
  if (bytes < 0) return absl::InvalidArgumentError(absl::StrCat("a buffer of ", bytes, " bytes"));
  RENGA_ASSIGN_OR_RETURN(DeviceMemory memory, DeviceMemory::Allocate(device_, bytes));
  return std::make_unique<CudaBuffer>(std::move(memory));
}

absl::Status CudaBackend::Upload(std::span<const std::byte> host, Buffer& to, int64_t offset) {
  RENGA_RETURN_IF_ERROR(CheckRange(to, offset, host.size()));
  attention_.ForgetFactors();
  return device_->Upload(host, to.data() + offset);
}

absl::Status CudaBackend::Download(Buffer& from, int64_t offset, std::span<std::byte> host) {
  RENGA_RETURN_IF_ERROR(CheckRange(from, offset, host.size()));
  return device_->Download(from.data() + offset, host);
}

// ---- Weights ------------------------------------------------------------------------------------

int64_t CudaBackend::MatrixBytes(base::DataType type, int64_t rows, int64_t columns) const {
  if (!CheckMatrixShape(type, rows, columns).ok()) return 0;
  return CudaMatrix::Bytes(type, rows, columns);
}

absl::StatusOr<std::unique_ptr<WeightMatrix>> CudaBackend::CreateMatrix(base::DataType type,
                                                                        int64_t rows,
                                                                        int64_t columns) {
  RENGA_RETURN_IF_ERROR(CheckMatrixShape(type, rows, columns));
  return CudaMatrix::Create(device_, type, rows, columns);
}

absl::Status CudaBackend::LoadRows(WeightMatrix& matrix, int64_t first_row,
                                   std::span<const std::byte> rows) {
  auto* own = dynamic_cast<CudaMatrix*>(&matrix);
  if (own == nullptr) return absl::InvalidArgumentError("a matrix of another backend");
  RENGA_RETURN_IF_ERROR(CheckLoadRows(matrix, first_row, rows.size()));
  return own->Load(*device_, first_row, rows);
}

// ---- Rows ---------------------------------------------------------------------------------------

absl::Status CudaBackend::RmsNorm(ConstRowsView in, const float* weight, float epsilon,
                                  RowsView out) {
  RENGA_RETURN_IF_ERROR(CheckRmsNorm(in, weight, out));
  if (in.rows == 0 || in.columns == 0) return absl::OkStatus();
  return launcher_.Launch(Kernel::kRmsNorm, {in.rows, 1, cuda::kRowThreads},
                          cuda::NormArgs{.in = in.data,
                                         .in_stride = in.stride,
                                         .weight = weight,
                                         .epsilon = epsilon,
                                         .out = out.data,
                                         .out_stride = out.stride,
                                         .rows = in.rows,
                                         .columns = in.columns,
                                         .head_dim = in.columns});
}

absl::Status CudaBackend::HeadRmsNorm(RowsView rows, int64_t head_dim, const float* weight,
                                      float epsilon) {
  RENGA_RETURN_IF_ERROR(CheckHeadRmsNorm(rows, head_dim, weight));
  return launcher_.LaunchWarps(Kernel::kHeadRmsNorm, rows.rows * (rows.columns / head_dim),
                               cuda::NormArgs{.in = rows.data,
                                              .in_stride = rows.stride,
                                              .weight = weight,
                                              .epsilon = epsilon,
                                              .out = rows.data,
                                              .out_stride = rows.stride,
                                              .rows = rows.rows,
                                              .columns = rows.columns,
                                              .head_dim = head_dim});
}

absl::Status CudaBackend::Gate(Kernel kernel, ConstRowsView gate, ConstRowsView up, RowsView out) {
  RENGA_RETURN_IF_ERROR(CheckSiluGate(gate, up, out));
  return launcher_.LaunchThreads(kernel, out.rows * out.columns,
                                 cuda::RowsArgs{.a = gate.data,
                                                .a_stride = gate.stride,
                                                .b = up.data,
                                                .b_stride = up.stride,
                                                .out = out.data,
                                                .out_stride = out.stride,
                                                .rows = out.rows,
                                                .columns = out.columns});
}

absl::Status CudaBackend::Add(ConstRowsView in, RowsView out) {
  RENGA_RETURN_IF_ERROR(CheckAdd(in, out));
  return launcher_.LaunchThreads(Kernel::kAdd, out.rows * out.columns,
                                 cuda::RowsArgs{.a = in.data,
                                                .a_stride = in.stride,
                                                .b = nullptr,
                                                .b_stride = 0,
                                                .out = out.data,
                                                .out_stride = out.stride,
                                                .rows = out.rows,
                                                .columns = out.columns});
}

}  // namespace

std::unique_ptr<Backend> CreateCudaBackend(std::shared_ptr<cuda::Device> device, CudaPath path) {
  return std::make_unique<CudaBackend>(std::move(device), path);
}

}  // namespace renga::kernels

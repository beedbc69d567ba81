#include "worker/kernels/reference/reference_backend.h"

#include <cstring>
#include <utility>
#include <vector>

#include "base/data_type.h"
#include "base/status_macros.h"
#include "worker/kernels/host_buffer.h"
#include "worker/kernels/op_checks.h"
#include "worker/kernels/reference/reference_ops.h"

namespace renga::kernels {
namespace {

// The file's bytes as they are, row after row.
class ReferenceMatrix : public WeightMatrix {
 public:
  ReferenceMatrix(base::DataType type, int64_t rows, int64_t columns,
                  std::unique_ptr<HostBuffer> bytes)
      : type_(type), rows_(rows), columns_(columns), bytes_(std::move(bytes)) {}

  base::DataType type() const override { return type_; }
  int64_t rows() const override { return rows_; }
  int64_t columns() const override { return columns_; }

  std::byte* row(int64_t r) { return bytes_->data() + r * row_bytes(); }
  void Decode(int64_t r, float* out) const {
    const HostBuffer& bytes = *bytes_;
    base::GetDataTypeInfo(type_).to_float(bytes.data() + r * row_bytes(), out, columns_);
  }

 private:
  int64_t row_bytes() const { return bytes_->size_bytes() / rows_; }

  const base::DataType type_;
  const int64_t rows_;
  const int64_t columns_;
  const std::unique_ptr<HostBuffer> bytes_;
};

void ComputeOutput(ConstRowsView in, const ReferenceMatrix& matrix, const LinearOutput& output) {
  std::vector<float> weights(static_cast<size_t>(in.columns));
  for (int64_t row = 0; row < matrix.rows(); ++row) {
    matrix.Decode(row, weights.data());
    for (int64_t r = 0; r < in.rows; ++r) {
      const float* x = in.data + r * in.stride;
      double sum = 0;
      for (int64_t c = 0; c < in.columns; ++c) {
        sum += static_cast<double>(weights[static_cast<size_t>(c)]) * x[c];
      }
      if (output.bias != nullptr) sum += output.bias[row];
      output.out.data[r * output.out.stride + row] = static_cast<float>(sum);
    }
  }
}

class ReferenceBackend : public Backend {
 public:
  absl::string_view path_name() const override { return "reference-1"; }

  absl::StatusOr<std::unique_ptr<Buffer>> Allocate(int64_t bytes) override {
    return HostBuffer::Create(bytes);
  }
  absl::Status Upload(std::span<const std::byte> host, Buffer& to, int64_t offset) override {
    return UploadToHost(host, to, offset);
  }
  absl::Status Download(Buffer& from, int64_t offset, std::span<std::byte> host) override {
    return DownloadFromHost(from, offset, host);
  }

  int64_t MatrixBytes(base::DataType type, int64_t rows, int64_t columns) const override {
    if (!CheckMatrixShape(type, rows, columns).ok()) return 0;
    const base::DataTypeInfo& info = base::GetDataTypeInfo(type);
    return columns / info.block_elements * info.block_bytes * rows;
  }

  absl::StatusOr<std::unique_ptr<WeightMatrix>> CreateMatrix(base::DataType type, int64_t rows,
                                                             int64_t columns) override {
    RENGA_RETURN_IF_ERROR(CheckMatrixShape(type, rows, columns));
    RENGA_ASSIGN_OR_RETURN(auto bytes, HostBuffer::Create(MatrixBytes(type, rows, columns)));
    return std::make_unique<ReferenceMatrix>(type, rows, columns, std::move(bytes));
  }

  absl::Status LoadRows(WeightMatrix& matrix, int64_t first_row,
                        std::span<const std::byte> rows) override {
    auto* own = dynamic_cast<ReferenceMatrix*>(&matrix);
    if (own == nullptr) return absl::InvalidArgumentError("a matrix of another backend");
    RENGA_RETURN_IF_ERROR(CheckLoadRows(matrix, first_row, rows.size()));
    if (!rows.empty()) std::memcpy(own->row(first_row), rows.data(), rows.size());
    return absl::OkStatus();
  }

  absl::Status RmsNorm(ConstRowsView in, const float* weight, float epsilon,
                       RowsView out) override {
    RENGA_RETURN_IF_ERROR(CheckRmsNorm(in, weight, out));
    reference::RmsNorm(in, weight, epsilon, out);
    return absl::OkStatus();
  }

  absl::Status HeadRmsNorm(RowsView rows, int64_t head_dim, const float* weight,
                           float epsilon) override {
    RENGA_RETURN_IF_ERROR(CheckHeadRmsNorm(rows, head_dim, weight));
    reference::HeadRmsNorm(rows, head_dim, weight, epsilon);
    return absl::OkStatus();
  }

  absl::Status Linear(ConstRowsView in, std::span<const LinearOutput> outputs) override {
    RENGA_RETURN_IF_ERROR(CheckLinear(in, outputs));
    for (const LinearOutput& output : outputs) {
      const auto* matrix = dynamic_cast<const ReferenceMatrix*>(output.matrix);
      if (matrix == nullptr) return absl::InvalidArgumentError("a matrix of another backend");
      ComputeOutput(in, *matrix, output);
    }
    return absl::OkStatus();
  }

  absl::Status Rope(RowsView rows, std::span<const int64_t> positions,
                    const RopeArgs& args) override {
    RENGA_RETURN_IF_ERROR(CheckRope(rows, positions, args));
    reference::Rope(rows, positions, args);
    return absl::OkStatus();
  }

  absl::Status StoreKv(ConstRowsView keys, ConstRowsView values, const KvCacheView& cache,
                       std::span<const SequenceSlot> slots) override {
    RENGA_RETURN_IF_ERROR(CheckStoreKv(keys, values, cache, slots));
    reference::StoreKv(keys, values, cache, slots);
    return absl::OkStatus();
  }

  absl::Status Attention(const AttentionArgs& args) override {
    RENGA_RETURN_IF_ERROR(CheckAttention(args));
    reference::Attention(args);
    return absl::OkStatus();
  }

  absl::Status SiluGate(ConstRowsView gate, ConstRowsView up, RowsView out) override {
    RENGA_RETURN_IF_ERROR(CheckSiluGate(gate, up, out));
    reference::SiluGate(gate, up, out);
    return absl::OkStatus();
  }

  absl::Status GeluGate(ConstRowsView gate, ConstRowsView up, RowsView out) override {
    RENGA_RETURN_IF_ERROR(CheckGeluGate(gate, up, out));
    reference::GeluGate(gate, up, out);
    return absl::OkStatus();
  }

  absl::Status Add(ConstRowsView in, RowsView out) override {
    RENGA_RETURN_IF_ERROR(CheckAdd(in, out));
    reference::Add(in, out);
    return absl::OkStatus();
  }

  absl::Status TopK(ConstRowsView logits, int64_t k, std::span<TopRow> result) override {
    RENGA_RETURN_IF_ERROR(CheckTopK(logits, result));
    for (int64_t r = 0; r < logits.rows; ++r) {
      result[static_cast<size_t>(r)] = reference::TopK(
          {logits.data + r * logits.stride, static_cast<size_t>(logits.columns)}, k);
    }
    return absl::OkStatus();
  }

  absl::Status Synchronize() override { return absl::OkStatus(); }
};

}  // namespace

std::unique_ptr<Backend> CreateReferenceBackend() { return std::make_unique<ReferenceBackend>(); }

}  // namespace renga::kernels

#include "worker/kernels/cpu/cpu_backend.h"

#include <algorithm>
#include <array>
#include <cstring>
#include <limits>
#include <string>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "base/thread_pool.h"
#include "worker/kernels/cpu/cpu_attention.h"
#include "worker/kernels/cpu/kernel_table.h"
#include "worker/kernels/cpu/packed_matrix.h"
#include "worker/kernels/cpu/rope_table.h"
#include "worker/kernels/cpu/top_rows.h"
#include "worker/kernels/cpu/working_memory.h"
#include "worker/kernels/host_buffer.h"
#include "worker/kernels/op_checks.h"

namespace renga::kernels {
namespace {

using cpu::ActivationKind;
using cpu::CpuKernels;
using cpu::MatmulTask;
using cpu::PackedMatrix;

// Tokens whose activations are rounded and multiplied at a time: bounds the working memory of a
// Linear call to this many rows of blocks.
constexpr int64_t kLinearTokens = 256;
// The same for blocks of 4 bytes a number, where model::ScratchParts counts 2: half of the tokens,
// but at least as many as the kernels take at once.
constexpr int64_t kFewestSplitTokens = 64;
// Rows of less than this many numbers in all are not worth waking other threads for.
constexpr int64_t kWorthSharing = 32768;

const CpuKernels& KernelsOf(CpuPath path) {
  switch (path) {
#if defined(__x86_64__)
    case CpuPath::kSsse3:
      return cpu::Ssse3Kernels();
    case CpuPath::kAvx:
      return cpu::AvxKernels();
    case CpuPath::kAvx2:
      return cpu::Avx2Kernels();
    case CpuPath::kAvxVnni:
      return cpu::AvxVnniKernels();
    case CpuPath::kAvx512Vnni:
      return cpu::Avx512VnniKernels();
    case CpuPath::kAmx:
      return cpu::AmxKernels();
#elif defined(__aarch64__)
    case CpuPath::kNeon:
      return cpu::NeonKernels();
    case CpuPath::kNeonDotprod:
      return cpu::NeonDotprodKernels();
    case CpuPath::kNeonI8mm:
      return cpu::NeonI8mmKernels();
#endif
    default:  // kPortable; AvailableCpuPaths() has none of other processors
      return cpu::PortableKernels();
  }
}

class CpuBackend : public Backend {
 public:
  CpuBackend(const CpuKernels& kernels, int threads)
      : kernels_(kernels),
        layout_name_(absl::StrCat("panels", kernels.lanes, "-4")),
        pool_(threads),
        attention_(kernels, &pool_) {}

  absl::string_view path_name() const override { return kernels_.path_name; }
  base::ThreadPool* threads() override { return &pool_; }

  absl::StatusOr<std::unique_ptr<Buffer>> Allocate(int64_t bytes) override {
    return HostBuffer::Create(bytes);
  }
  absl::Status Upload(std::span<const std::byte> host, Buffer& to, int64_t offset) override {
    return UploadToHost(host, to, offset);
  }
  absl::Status Download(Buffer& from, int64_t offset, std::span<std::byte> host) override {
    return DownloadFromHost(from, offset, host);
  }

  int64_t MatrixBytes(base::DataType type, int64_t rows, int64_t columns) const override;
  absl::StatusOr<std::unique_ptr<WeightMatrix>> CreateMatrix(base::DataType type, int64_t rows,
                                                             int64_t columns) override;
  absl::Status LoadRows(WeightMatrix& matrix, int64_t first_row,
                        std::span<const std::byte> rows) override;
  int loading_threads() const override { return pool_.thread_count(); }
  absl::Status LoadRowsAlone(WeightMatrix& matrix, int64_t first_row,
                             std::span<const std::byte> rows) override;
  absl::string_view layout_name() const override { return layout_name_; }
  std::span<const std::byte> BytesOf(const WeightMatrix& matrix) const override;
  absl::StatusOr<std::unique_ptr<WeightMatrix>> AdoptMatrix(base::DataType type, int64_t rows,
                                                            int64_t columns,
                                                            PackedBytes packed) override;

  absl::Status RmsNorm(ConstRowsView in, const float* weight, float epsilon, RowsView out) override;
  absl::Status HeadRmsNorm(RowsView rows, int64_t head_dim, const float* weight,
                           float epsilon) override;
  absl::Status Linear(ConstRowsView in, std::span<const LinearOutput> outputs) override;
  absl::Status RmsNormLinear(ConstRowsView in, const float* weight, float epsilon, RowsView normed,
                             std::span<const LinearOutput> outputs) override;
  absl::Status SiluGateLinear(ConstRowsView gate, ConstRowsView up, RowsView gated,
                              std::span<const LinearOutput> outputs) override;
  absl::Status Rope(RowsView rows, std::span<const int64_t> positions,
                    const RopeArgs& args) override;
  absl::Status StoreKv(ConstRowsView keys, ConstRowsView values, const KvCacheView& cache,
                       std::span<const SequenceSlot> slots) override {
    return attention_.StoreKv(keys, values, cache, slots);
  }
  absl::Status Attention(const AttentionArgs& args) override { return attention_.Run(args); }
  absl::Status SiluGate(ConstRowsView gate, ConstRowsView up, RowsView out) override;
  absl::Status GeluGate(ConstRowsView gate, ConstRowsView up, RowsView out) override;
  absl::Status Add(ConstRowsView in, RowsView out) override;
  absl::Status TopK(ConstRowsView logits, int64_t k, std::span<TopRow> result) override;

  absl::Status Synchronize() override { return absl::OkStatus(); }

 private:
  // One matrix of a Linear call; its panels begin at `first_panel` of the call's.
  struct LinearJob {
    MatmulTask task;
    cpu::MatmulFunction matmul = nullptr;
    ActivationKind kind = ActivationKind::kFloat;
    int64_t first_panel = 0;
    int64_t panels = 0;
  };
  // Calls body(row) for all rows, on several threads when they are worth it.
  template <class Body>
  void ForRows(int64_t rows, int64_t columns, const Body& body);
  absl::Status PrepareJobs(std::span<const LinearOutput> outputs);
  int64_t TokensAtATime(int64_t tokens) const;
  absl::Status ReserveBlocks(int64_t tokens, int64_t columns);
  void QuantizeRow(ConstRowsView in, int64_t row);
  // Linear of rows that `prepare(row)` makes first, each row just before it is rounded.
  template <class Prepare>
  absl::Status LinearOf(ConstRowsView in, std::span<const LinearOutput> outputs,
                        const Prepare& prepare);
  void RunJobs(int64_t tokens);

  const CpuKernels& kernels_;
  const std::string layout_name_;  // see packed_matrix.h; grows a number when the layout changes
  const int64_t ahead_bytes_ = WeightsAheadBytes();
  base::ThreadPool pool_;
  cpu::RopeTable rope_;
  std::vector<LinearJob> jobs_;
  std::array<cpu::WorkingMemory, cpu::kActivationKinds> activations_;
  cpu::CpuAttention attention_;
};

template <class Body>
void CpuBackend::ForRows(int64_t rows, int64_t columns, const Body& body) {
  if (rows * columns < kWorthSharing || pool_.thread_count() == 1) {
    for (int64_t r = 0; r < rows; ++r) body(r);
    return;
  }
  const int64_t grain = std::max<int64_t>(1, kWorthSharing / 4 / std::max<int64_t>(1, columns));
  pool_.ParallelFor(rows, grain, [&](int64_t begin, int64_t end) {
    for (int64_t r = begin; r < end; ++r) body(r);
  });
}

// ---- Weights ------------------------------------------------------------------------------------

int64_t CpuBackend::MatrixBytes(base::DataType type, int64_t rows, int64_t columns) const {
  if (!CheckMatrixShape(type, rows, columns).ok()) return 0;
  return PackedMatrix::Bytes(type, rows, columns, kernels_.lanes);
}

absl::StatusOr<std::unique_ptr<WeightMatrix>> CpuBackend::CreateMatrix(base::DataType type,
                                                                       int64_t rows,
                                                                       int64_t columns) {
  RENGA_RETURN_IF_ERROR(CheckMatrixShape(type, rows, columns));
  if (kernels_.format(type).matmul == nullptr) {
    return absl::UnimplementedError(
        absl::StrCat("no CPU kernel for ", base::GetDataTypeInfo(type).name));
  }
  return PackedMatrix::Create(type, rows, columns, kernels_.lanes);
}

absl::StatusOr<PackedMatrix*> LoadableMatrix(WeightMatrix& matrix, int64_t first_row,
                                             std::span<const std::byte> rows) {
  auto* own = dynamic_cast<PackedMatrix*>(&matrix);
  if (own == nullptr) return absl::InvalidArgumentError("a matrix of another backend");
  if (!own->loadable()) return absl::FailedPreconditionError("the matrix was adopted as it is");
  RENGA_RETURN_IF_ERROR(CheckLoadRows(matrix, first_row, rows.size()));
  return own;
}

absl::Status CpuBackend::LoadRowsAlone(WeightMatrix& matrix, int64_t first_row,
                                       std::span<const std::byte> rows) {
  RENGA_ASSIGN_OR_RETURN(PackedMatrix * own, LoadableMatrix(matrix, first_row, rows));
  own->Pack(first_row, rows);
  return absl::OkStatus();
}

absl::Status CpuBackend::LoadRows(WeightMatrix& matrix, int64_t first_row,
                                  std::span<const std::byte> rows) {
  RENGA_ASSIGN_OR_RETURN(PackedMatrix * own, LoadableMatrix(matrix, first_row, rows));
  RENGA_ASSIGN_OR_RETURN(const int64_t row_bytes, base::RowBytes(own->type(), own->columns()));
  const int64_t count = static_cast<int64_t>(rows.size()) / row_bytes;
  pool_.ParallelFor(count, 4 * kernels_.lanes, [&](int64_t begin, int64_t end) {
    own->Pack(first_row + begin, rows.subspan(static_cast<size_t>(begin * row_bytes),
                                              static_cast<size_t>((end - begin) * row_bytes)));
  });
  return absl::OkStatus();
}

std::span<const std::byte> CpuBackend::BytesOf(const WeightMatrix& matrix) const {
  const auto* own = dynamic_cast<const PackedMatrix*>(&matrix);
  if (own == nullptr) return {};
  return {own->data(), static_cast<size_t>(MatrixBytes(own->type(), own->rows(), own->columns()))};
}

absl::StatusOr<std::unique_ptr<WeightMatrix>> CpuBackend::AdoptMatrix(base::DataType type,
                                                                      int64_t rows, int64_t columns,
                                                                      PackedBytes packed) {
  RENGA_RETURN_IF_ERROR(CheckMatrixShape(type, rows, columns));
  const int64_t wanted = MatrixBytes(type, rows, columns);
  if (static_cast<int64_t>(packed.bytes.size()) != wanted) {
    return absl::InvalidArgumentError(
        absl::StrCat("a matrix of ", wanted, " bytes was given ", packed.bytes.size()));
  }
  return PackedMatrix::Adopt(type, rows, columns, kernels_.lanes, std::move(packed));
}

// ---- Linear -------------------------------------------------------------------------------------

absl::Status CpuBackend::PrepareJobs(std::span<const LinearOutput> outputs) {
  jobs_.clear();
  int64_t panels = 0;
  for (const LinearOutput& output : outputs) {
    const auto* matrix = dynamic_cast<const PackedMatrix*>(output.matrix);
    if (matrix == nullptr) return absl::InvalidArgumentError("a matrix of another backend");
    const cpu::FormatKernels format = kernels_.format(matrix->type());
    LinearJob job;
    job.matmul = format.matmul;
    job.kind = format.activations;
    job.first_panel = panels;
    job.panels = matrix->panels();
    job.task.panels = matrix->data();
    job.task.rows = matrix->rows();
    job.task.columns = matrix->columns();
    job.task.ahead_bytes = ahead_bytes_;
    job.task.bias = output.bias;
    job.task.out = output.out.data;
    job.task.out_stride = output.out.stride;
    panels += job.panels;
    jobs_.push_back(job);
  }
  return absl::OkStatus();
}

int64_t CpuBackend::TokensAtATime(int64_t tokens) const {
  for (const LinearJob& job : jobs_) {
    if (job.kind != ActivationKind::kSplit32) continue;
    return std::clamp((tokens + 1) / 2, kFewestSplitTokens, kLinearTokens);
  }
  return kLinearTokens;
}

// Memory for the rows' blocks of each kind that a job reads, and points the jobs there.
absl::Status CpuBackend::ReserveBlocks(int64_t tokens, int64_t columns) {
  for (LinearJob& job : jobs_) {
    if (job.kind == ActivationKind::kFloat) continue;
    cpu::WorkingMemory& memory = activations_[static_cast<size_t>(job.kind)];
    const int64_t elements = cpu::ActivationBlockElements(job.kind);
    const int64_t blocks = (columns + elements - 1) / elements;
    RENGA_RETURN_IF_ERROR(memory.Reserve(blocks * cpu::ActivationBlockBytes(job.kind) * tokens));
    job.task.activations = memory.data();
  }
  return absl::OkStatus();
}

// Rounds a row once for each kind of blocks that a job reads.
void CpuBackend::QuantizeRow(ConstRowsView in, int64_t row) {
  std::array<bool, cpu::kActivationKinds> done = {};
  done[static_cast<size_t>(ActivationKind::kFloat)] = true;
  for (const LinearJob& job : jobs_) {
    const auto kind = static_cast<size_t>(job.kind);
    if (std::exchange(done[kind], true)) continue;
    kernels_.quantize(job.kind, in.data + row * in.stride, in.columns, in.rows,
                      activations_[kind].data() + row * cpu::ActivationBlockBytes(job.kind));
  }
}

// All panels of all jobs are one loop, so that small matrices keep every thread busy too.
void CpuBackend::RunJobs(int64_t tokens) {
  const int64_t panels = jobs_.back().first_panel + jobs_.back().panels;
  // Kernels take panels two at a time. Pieces of more would gain nothing, and a thread that others
  // hold up keeps all that it has begun.
  constexpr int64_t kGrain = 2;
  const int64_t most = tokens == 1 ? 64 : 16;
  pool_.ParallelFor(panels, kGrain, most, [&](int64_t begin, int64_t end) {
    for (const LinearJob& job : jobs_) {
      const int64_t from = std::max(begin, job.first_panel) - job.first_panel;
      const int64_t to = std::min(end, job.first_panel + job.panels) - job.first_panel;
      if (from < to) job.matmul(job.task, from, to);
    }
  });
}

template <class Prepare>
absl::Status CpuBackend::LinearOf(ConstRowsView in, std::span<const LinearOutput> outputs,
                                  const Prepare& prepare) {
  RENGA_RETURN_IF_ERROR(CheckLinear(in, outputs));
  if (in.rows == 0) return absl::OkStatus();
  RENGA_RETURN_IF_ERROR(PrepareJobs(outputs));
  const int64_t most = jobs_.empty() ? in.rows : TokensAtATime(in.rows);
  for (int64_t first = 0; first < in.rows; first += most) {
    const ConstRowsView part(in.data + first * in.stride, std::min(most, in.rows - first),
                             in.columns, in.stride);
    RENGA_RETURN_IF_ERROR(ReserveBlocks(part.rows, part.columns));
    ForRows(part.rows, part.columns, [&](int64_t r) {
      prepare(first + r);
      QuantizeRow(part, r);
    });
    for (LinearJob& job : jobs_) {
      job.task.tokens = part.rows;
      if (job.kind == ActivationKind::kFloat) {
        job.task.activations = reinterpret_cast<const std::byte*>(part.data);
        job.task.input_stride = part.stride;
      }
    }
    if (!jobs_.empty()) RunJobs(part.rows);
    for (LinearJob& job : jobs_) job.task.out += part.rows * job.task.out_stride;
  }
  return absl::OkStatus();
}

absl::Status CpuBackend::Linear(ConstRowsView in, std::span<const LinearOutput> outputs) {
  return LinearOf(in, outputs, [](int64_t) {});
}

absl::Status CpuBackend::RmsNormLinear(ConstRowsView in, const float* weight, float epsilon,
                                       RowsView normed, std::span<const LinearOutput> outputs) {
  RENGA_RETURN_IF_ERROR(CheckRmsNorm(in, weight, normed));
  return LinearOf(normed, outputs, [&](int64_t r) {
    kernels_.rms_norm(in.data + r * in.stride, weight, epsilon, in.columns,
                      normed.data + r * normed.stride);
  });
}

absl::Status CpuBackend::SiluGateLinear(ConstRowsView gate, ConstRowsView up, RowsView gated,
                                        std::span<const LinearOutput> outputs) {
  RENGA_RETURN_IF_ERROR(CheckSiluGate(gate, up, gated));
  return LinearOf(gated, outputs, [&](int64_t r) {
    kernels_.silu_gate(gate.data + r * gate.stride, up.data + r * up.stride, gate.columns,
                       gated.data + r * gated.stride);
  });
}

// ---- Rows ---------------------------------------------------------------------------------------

absl::Status CpuBackend::RmsNorm(ConstRowsView in, const float* weight, float epsilon,
                                 RowsView out) {
  RENGA_RETURN_IF_ERROR(CheckRmsNorm(in, weight, out));
  ForRows(in.rows, in.columns, [&](int64_t r) {
    kernels_.rms_norm(in.data + r * in.stride, weight, epsilon, in.columns,
                      out.data + r * out.stride);
  });
  return absl::OkStatus();
}

absl::Status CpuBackend::HeadRmsNorm(RowsView rows, int64_t head_dim, const float* weight,
                                     float epsilon) {
  RENGA_RETURN_IF_ERROR(CheckHeadRmsNorm(rows, head_dim, weight));
  ForRows(rows.rows, rows.columns, [&](int64_t r) {
    for (int64_t c = 0; c < rows.columns; c += head_dim) {
      float* head = rows.data + r * rows.stride + c;
      kernels_.rms_norm(head, weight, epsilon, head_dim, head);
    }
  });
  return absl::OkStatus();
}

absl::Status CpuBackend::Rope(RowsView rows, std::span<const int64_t> positions,
                              const RopeArgs& args) {
  RENGA_RETURN_IF_ERROR(CheckRope(rows, positions, args));
  rope_.Prepare(positions, args);
  ForRows(rows.rows, rows.columns, [&](int64_t r) {
    for (int64_t c = 0; c < rows.columns; c += args.head_dim) {
      kernels_.rotate(args.neighbours, rope_.cosines(r), rope_.sines(r), args.dims / 2,
                      rows.data + r * rows.stride + c);
    }
  });
  return absl::OkStatus();
}

absl::Status CpuBackend::SiluGate(ConstRowsView gate, ConstRowsView up, RowsView out) {
  RENGA_RETURN_IF_ERROR(CheckSiluGate(gate, up, out));
  ForRows(gate.rows, gate.columns, [&](int64_t r) {
    kernels_.silu_gate(gate.data + r * gate.stride, up.data + r * up.stride, gate.columns,
                       out.data + r * out.stride);
  });
  return absl::OkStatus();
}

absl::Status CpuBackend::GeluGate(ConstRowsView gate, ConstRowsView up, RowsView out) {
  RENGA_RETURN_IF_ERROR(CheckGeluGate(gate, up, out));
  ForRows(gate.rows, gate.columns, [&](int64_t r) {
    kernels_.gelu_gate(gate.data + r * gate.stride, up.data + r * up.stride, gate.columns,
                       out.data + r * out.stride);
  });
  return absl::OkStatus();
}

absl::Status CpuBackend::Add(ConstRowsView in, RowsView out) {
  RENGA_RETURN_IF_ERROR(CheckAdd(in, out));
  ForRows(in.rows, in.columns, [&](int64_t r) {
    kernels_.add(in.data + r * in.stride, in.columns, out.data + r * out.stride);
  });
  return absl::OkStatus();
}

absl::Status CpuBackend::TopK(ConstRowsView logits, int64_t k, std::span<TopRow> result) {
  RENGA_RETURN_IF_ERROR(CheckTopK(logits, result));
  ForRows(logits.rows, logits.columns, [&](int64_t r) {
    const float* row = logits.data + r * logits.stride;
    TopRow& top = result[static_cast<size_t>(r)];
    top.indices = cpu::TopColumns({row, static_cast<size_t>(logits.columns)}, k);
    top.logits.clear();
    for (const int32_t column : top.indices) top.logits.push_back(row[column]);
    top.max_logit = kernels_.largest(row, logits.columns);
    top.sum_exp = kernels_.sum_exp(row, logits.columns, top.max_logit);
  });
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<std::unique_ptr<Backend>> CreateCpuBackend(CpuPath path, int threads) {
  if (threads < 1) {
    return absl::InvalidArgumentError(absl::StrCat("a CPU backend with ", threads, " threads"));
  }
  const std::vector<CpuPath> available = AvailableCpuPaths();
  if (std::find(available.begin(), available.end(), path) == available.end()) {
    return absl::FailedPreconditionError(
        absl::StrCat("this machine cannot run the CPU path ", CpuPathName(path)));
  }
  return CreateCpuBackendOf(KernelsOf(path), threads);
}

std::unique_ptr<Backend> CreateCpuBackendOf(const CpuKernels& kernels, int threads) {
  return std::make_unique<CpuBackend>(kernels, threads);
}

}  // namespace renga::kernels

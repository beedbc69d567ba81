#include "worker/kernels/cpu/cpu_backend.h"

#include <algorithm>
#include <array>
#include <atomic>
#include <cstring>
#include <limits>
#include <string>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "base/thread_pool.h"
#include "worker/kernels/cpu/kernel_table.h"
#include "worker/kernels/cpu/packed_matrix.h"
#include "worker/kernels/cpu/rope_table.h"
#include "worker/kernels/cpu/top_rows.h"
#include "worker/kernels/host_buffer.h"
#include "worker/kernels/kv_layout.h"
#include "worker/kernels/op_checks.h"

namespace renga::kernels {
namespace {

using cpu::ActivationKind;
using cpu::AttentionTask;
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
// Attention jobs for each thread that are shared out evenly enough.
constexpr int64_t kAttentionJobsPerThread = 4;
// Bytes that the parts of an attention call may take: of what model::ScratchParts calls fixed.
constexpr int64_t kMostPartBytes = int64_t{2} << 20;

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
        layout_name_(absl::StrCat("panels", kernels.lanes, "-3")),
        pool_(threads) {}

  absl::string_view path_name() const override { return kernels_.path_name; }

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
                       std::span<const SequenceSlot> slots) override;
  absl::Status Attention(const AttentionArgs& args) override;
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
  // Rows of a slot of an Attention call, and how many spans of positions they see.
  struct AttentionJob {
    int64_t slot = 0;
    cpu::AttentionRows rows;
    int64_t spans = 0;
  };
  // One span of a job, and where in attention_parts_ its sums go.
  struct AttentionSpan {
    const AttentionJob* job = nullptr;
    int64_t span = 0;
    int64_t part_offset = 0;
  };
  struct FreeBytes {
    void operator()(std::byte* p) const { std::free(p); }
  };
  // Memory that grows and is used again in the next call.
  struct Scratch {
    std::unique_ptr<std::byte, FreeBytes> data;
    int64_t bytes = 0;
    absl::Status Reserve(int64_t wanted);
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
  void StoreKvHead(const KvLayout& layout, const float* key, const float* value, int64_t token,
                   std::byte* keys, std::byte* values);
  static AttentionTask TaskOf(const AttentionArgs& args, const SequenceSlot& slot);
  void PrepareAttention(const AttentionArgs& args);
  int64_t PrepareSpans();
  template <class Body>
  absl::Status ForAttention(int64_t n, const Body& body);

  const CpuKernels& kernels_;
  const std::string layout_name_;  // see packed_matrix.h; grows a number when the layout changes
  base::ThreadPool pool_;
  cpu::RopeTable rope_;
  std::vector<LinearJob> jobs_;
  std::array<Scratch, cpu::kActivationKinds> activations_;
  std::vector<AttentionTask> attention_tasks_;
  std::vector<AttentionJob> attention_jobs_;
  std::vector<AttentionSpan> attention_spans_;
  Scratch attention_scratch_;
  Scratch attention_parts_;
  std::vector<std::byte> key_halves_;
};

absl::Status CpuBackend::Scratch::Reserve(int64_t wanted) {
  if (wanted <= bytes) return absl::OkStatus();
  const int64_t rounded = (wanted + 63) / 64 * 64;
  data.reset();
  bytes = 0;
  data.reset(static_cast<std::byte*>(std::aligned_alloc(64, static_cast<size_t>(rounded))));
  if (data == nullptr) {
    return absl::ResourceExhaustedError(
        absl::StrCat("no working memory of ", rounded, " bytes for the CPU backend"));
  }
  bytes = rounded;
  return absl::OkStatus();
}

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

absl::Status CpuBackend::LoadRows(WeightMatrix& matrix, int64_t first_row,
                                  std::span<const std::byte> rows) {
  auto* own = dynamic_cast<PackedMatrix*>(&matrix);
  if (own == nullptr) return absl::InvalidArgumentError("a matrix of another backend");
  if (!own->loadable()) return absl::FailedPreconditionError("the matrix was adopted as it is");
  RENGA_RETURN_IF_ERROR(CheckLoadRows(matrix, first_row, rows.size()));
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
    Scratch& scratch = activations_[static_cast<size_t>(job.kind)];
    const int64_t elements = cpu::ActivationBlockElements(job.kind);
    const int64_t blocks = (columns + elements - 1) / elements;
    RENGA_RETURN_IF_ERROR(scratch.Reserve(blocks * cpu::ActivationBlockBytes(job.kind) * tokens));
    job.task.activations = scratch.data.get();
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
                      activations_[kind].data.get() + row * cpu::ActivationBlockBytes(job.kind));
  }
}

// All panels of all jobs are one loop, so that small matrices keep every thread busy too.
void CpuBackend::RunJobs(int64_t tokens) {
  const int64_t panels = jobs_.back().first_panel + jobs_.back().panels;
  // Small enough to share out evenly, large enough that taking a piece costs nothing. Even, because
  // kernels take panels two at a time.
  const int64_t pieces = static_cast<int64_t>(pool_.thread_count()) * 8;
  const int64_t grain = std::clamp<int64_t>(panels / pieces / 2 * 2, 2, tokens == 1 ? 64 : 16);
  pool_.ParallelFor(panels, grain, [&](int64_t begin, int64_t end) {
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

// ---- Attention ----------------------------------------------------------------------------------

// One KV head of one token. In a cache of halves the kernels round; else this is too rare or too
// simple for them.
void CpuBackend::StoreKvHead(const KvLayout& layout, const float* key, const float* value,
                             int64_t token, std::byte* keys, std::byte* values) {
  if (layout.type != base::DataType::kF16) {
    kernels::StoreKvHead(layout, key, value, token, keys, values);
    return;
  }
  kernels_.to_half(value, layout.head_dim, values + 2 * token * layout.head_dim);
  key_halves_.resize(static_cast<size_t>(2 * layout.head_dim));
  kernels_.to_half(key, layout.head_dim, key_halves_.data());
  for (int64_t d = 0; d < layout.head_dim; ++d) {
    std::memcpy(keys + 2 * (d * layout.tokens + token), key_halves_.data() + 2 * d, 2);
  }
}

absl::Status CpuBackend::StoreKv(ConstRowsView keys, ConstRowsView values, const KvCacheView& cache,
                                 std::span<const SequenceSlot> slots) {
  RENGA_RETURN_IF_ERROR(CheckStoreKv(keys, values, cache, slots));
  const KvLayout layout(cache);
  for (const SequenceSlot& slot : slots) {
    for (int64_t i = 0; i < slot.row_count; ++i) {
      const int64_t position = slot.first_position + i;
      const int64_t block = slot.blocks[static_cast<size_t>(position / cache.block_tokens)];
      const float* key = keys.data + (slot.first_row + i) * keys.stride;
      const float* value = values.data + (slot.first_row + i) * values.stride;
      for (int64_t head = 0; head < cache.n_kv_heads; ++head) {
        const int64_t offset = (block * cache.n_kv_heads + head) * layout.head_bytes();
        StoreKvHead(layout, key + head * cache.head_dim, value + head * cache.head_dim,
                    position % cache.block_tokens, cache.keys + offset, cache.values + offset);
      }
    }
  }
  return absl::OkStatus();
}

cpu::KvCells CellsOf(base::DataType type) {
  if (type == base::DataType::kQ8_0) return cpu::KvCells::kCodes;
  return type == base::DataType::kF16 ? cpu::KvCells::kHalves : cpu::KvCells::kFloats;
}

AttentionTask CpuBackend::TaskOf(const AttentionArgs& args, const SequenceSlot& slot) {
  const KvCacheView& cache = args.cache;
  AttentionTask task;
  task.queries = args.queries.data + slot.first_row * args.queries.stride;
  task.query_stride = args.queries.stride;
  task.out = args.out.data + slot.first_row * args.out.stride;
  task.out_stride = args.out.stride;
  task.rows = slot.row_count;
  task.first_position = slot.first_position;
  task.keys = cache.keys;
  task.values = cache.values;
  task.cells = CellsOf(cache.type);
  task.head_bytes = KvLayout(cache).head_bytes();
  task.scale_elements = base::kKvScaleElements;
  task.blocks = slot.blocks.data();
  task.block_tokens = cache.block_tokens;
  task.kv_heads = cache.n_kv_heads;
  task.heads_per_kv = args.n_heads / cache.n_kv_heads;
  task.head_dim = cache.head_dim;
  task.scale = args.scale;
  task.window = args.window;
  return task;
}

void CpuBackend::PrepareAttention(const AttentionArgs& args) {
  attention_tasks_.clear();
  attention_jobs_.clear();
  for (const SequenceSlot& slot : args.slots) {
    const AttentionTask task = TaskOf(args, slot);
    const auto index = static_cast<int64_t>(attention_tasks_.size());
    for (int64_t begin = 0; begin < task.rows; begin += cpu::kAttentionRows) {
      const int64_t count = std::min(cpu::kAttentionRows, task.rows - begin);
      const int64_t last = task.first_position + begin + count - 1;
      for (int64_t head = 0; head < task.kv_heads; ++head) {
        attention_jobs_.push_back({.slot = index,
                                   .rows = {.kv_head = head, .begin = begin, .count = count},
                                   .spans = last / cpu::kAttentionSpan + 1});
      }
    }
    attention_tasks_.push_back(task);
  }
}

// Lists the spans of all jobs; returns the bytes of their parts.
int64_t CpuBackend::PrepareSpans() {
  attention_spans_.clear();
  int64_t bytes = 0;
  for (const AttentionJob& job : attention_jobs_) {
    const AttentionTask& task = attention_tasks_[static_cast<size_t>(job.slot)];
    const int64_t each = kernels_.attention_part(task, job.rows.count);
    for (int64_t span = 0; span < job.spans; ++span, bytes += each) {
      attention_spans_.push_back({.job = &job, .span = span, .part_offset = bytes});
    }
  }
  return bytes;
}

// Calls body(i, scratch) for all i in [0, n); each thread has a working memory of its own.
template <class Body>
absl::Status CpuBackend::ForAttention(int64_t n, const Body& body) {
  // All tasks of a call have the same shape.
  const int64_t each = (kernels_.attention_scratch(attention_tasks_.front()) + 63) / 64 * 64;
  RENGA_RETURN_IF_ERROR(attention_scratch_.Reserve(each * pool_.thread_count()));
  std::atomic<int64_t> next{0};
  pool_.ParallelFor(pool_.thread_count(), 1, [&](int64_t begin, int64_t end) {
    for (int64_t thread = begin; thread < end; ++thread) {
      std::byte* scratch = attention_scratch_.data.get() + thread * each;
      for (int64_t i = next.fetch_add(1); i < n; i = next.fetch_add(1)) body(i, scratch);
    }
  });
  return absl::OkStatus();
}

absl::Status CpuBackend::Attention(const AttentionArgs& args) {
  RENGA_RETURN_IF_ERROR(CheckAttention(args));
  PrepareAttention(args);
  const auto jobs = static_cast<int64_t>(attention_jobs_.size());
  if (jobs == 0) return absl::OkStatus();
  const auto task_of = [this](const AttentionJob& job) -> const AttentionTask& {
    return attention_tasks_[static_cast<size_t>(job.slot)];
  };
  // Heads and rows are enough to share out, or there is nobody to share with, or too much to keep.
  const bool enough =
      pool_.thread_count() == 1 || jobs >= kAttentionJobsPerThread * pool_.thread_count();
  const int64_t part_bytes = enough ? 0 : PrepareSpans();
  if (enough || part_bytes > kMostPartBytes) {
    return ForAttention(jobs, [&](int64_t i, std::byte* scratch) {
      const AttentionJob& job = attention_jobs_[static_cast<size_t>(i)];
      kernels_.attention(task_of(job), job.rows, scratch);
    });
  }
  // Else the context is shared out too.
  RENGA_RETURN_IF_ERROR(attention_parts_.Reserve(part_bytes));
  std::byte* const parts = attention_parts_.data.get();
  RENGA_RETURN_IF_ERROR(ForAttention(
      static_cast<int64_t>(attention_spans_.size()), [&](int64_t i, std::byte* scratch) {
        const AttentionSpan& span = attention_spans_[static_cast<size_t>(i)];
        kernels_.attention_span(task_of(*span.job), span.job->rows, span.span, scratch,
                                parts + span.part_offset);
      }));
  std::byte* const scratch = attention_scratch_.data.get();
  for (const AttentionSpan& span : attention_spans_) {
    if (span.span > 0) continue;
    kernels_.attention_join(task_of(*span.job), span.job->rows, span.job->spans, scratch,
                            parts + span.part_offset);
  }
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

#include "worker/kernels/cuda/cuda_backend.h"

#include <algorithm>
#include <array>
#include <cstring>
#include <optional>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "worker/kernels/cpu/top_rows.h"
#include "worker/kernels/cuda/attention_plan.h"
#include "worker/kernels/cuda/cuda_matrix.h"
#include "worker/kernels/cuda/device_memory.h"
#include "worker/kernels/cuda/kernel_list.h"
#include "worker/kernels/cuda/launch_shapes.h"
#include "worker/kernels/cuda/top_merge.h"
#include "worker/kernels/kv_layout.h"
#include "worker/kernels/op_checks.h"

namespace renga::kernels {
namespace {

using cuda::CudaMatrix;
using cuda::DeviceMemory;
using cuda::Kernel;
using cuda::LaunchShape;

// Tokens whose activations are rounded and multiplied at a time: bounds the working memory.
constexpr int64_t kLinearTokens = 256;
// Floats take 4 bytes a number, where model::ScratchParts counts 2: half of the tokens, but enough
// for the tiles.
constexpr int64_t kFewestPlainTokens = 64;
// As good as no window: more than there are positions.
constexpr int64_t kNoWindow = int64_t{1} << 40;
// Bytes of answers of one TopK launch.
constexpr int64_t kMostTopBytes = int64_t{1} << 20;

constexpr int64_t Ceil(int64_t a, int64_t b) { return (a + b - 1) / b; }

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
        tensor_cores_(path == CudaPath::kBest && device_->has_tensor_cores()) {}

  absl::string_view path_name() const override { return "cuda-dp4a-1"; }

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
  absl::Status Linear(ConstRowsView in, std::span<const LinearOutput> outputs) override;
  absl::Status Rope(RowsView rows, std::span<const int64_t> positions,
                    const RopeArgs& args) override;
  absl::Status StoreKv(ConstRowsView keys, ConstRowsView values, const KvCacheView& cache,
                       std::span<const SequenceSlot> slots) override;
  absl::Status Attention(const AttentionArgs& args) override;
  absl::Status SiluGate(ConstRowsView gate, ConstRowsView up, RowsView out) override {
    return Gate(Kernel::kSiluGate, gate, up, out);
  }
  absl::Status GeluGate(ConstRowsView gate, ConstRowsView up, RowsView out) override {
    return Gate(Kernel::kGeluGate, gate, up, out);
  }
  absl::Status Add(ConstRowsView in, RowsView out) override;
  absl::Status TopK(ConstRowsView logits, int64_t k, std::span<TopRow> result) override;

  absl::Status Synchronize() override { return device_->Synchronize(); }

 private:
  template <class Args>
  absl::Status Launch(Kernel kernel, const LaunchShape& shape, const Args& args) {
    return device_->Launch(kernel, shape, std::as_bytes(std::span(&args, 1)));
  }
  // A thread, or a warp, for each of `items`; none is nothing to do.
  template <class Args>
  absl::Status LaunchThreads(Kernel kernel, int64_t items, const Args& args) {
    if (items == 0) return absl::OkStatus();
    return Launch(kernel, {Ceil(items, cuda::kRowThreads), 1, cuda::kRowThreads}, args);
  }
  template <class Args>
  absl::Status LaunchWarps(Kernel kernel, int64_t items, const Args& args) {
    return LaunchThreads(kernel, items * 32, args);
  }

  absl::Status Gate(Kernel kernel, ConstRowsView gate, ConstRowsView up, RowsView out);
  absl::Status LaunchLinear(const CudaMatrix& matrix, const cuda::LinearArgs& args);
  absl::Status LinearOfTokens(ConstRowsView in, std::span<const LinearOutput> outputs);
  absl::Status PrepareActivations(ConstRowsView in, bool quantized, bool plain,
                                  cuda::LinearArgs& args);
  absl::Status PrepareRopeTable(std::span<const int64_t> positions, const RopeArgs& args);
  // Rows that one launch answers.
  absl::Status TopOfRows(ConstRowsView logits, int64_t k, std::span<TopRow> result);
  absl::Status TopOnHost(ConstRowsView logits, int64_t k, std::span<TopRow> result);

  // What the rope table on the device was made of.
  struct RopeKey {
    int64_t positions_change = 0;
    int64_t dims = 0;
    double base = 0;
    double position_scale = 0;
    const float* factors = nullptr;
    bool operator==(const RopeKey&) const = default;
  };

  const std::shared_ptr<cuda::Device> device_;
  const bool tensor_cores_;
  cuda::DeviceScratch codes_;
  cuda::DeviceScratch floats_;
  cuda::DeviceScratch parts_;
  cuda::DeviceScratch top_;
  cuda::DeviceScratch rope_;
  cuda::DeviceTable positions_;
  cuda::DeviceTable stored_rows_;
  cuda::DeviceTable tiles_;
  cuda::DeviceTable blocks_;
  std::optional<RopeKey> rope_key_;  // none after an upload: the factors may have changed
  const float* rope_table_ = nullptr;
};

// ---- Memory -------------------------------------------------------------------------------------

absl::StatusOr<std::unique_ptr<Buffer>> CudaBackend::Allocate(int64_t bytes) {
  if (bytes < 0) return absl::InvalidArgumentError(absl::StrCat("a buffer of ", bytes, " bytes"));
  RENGA_ASSIGN_OR_RETURN(DeviceMemory memory, DeviceMemory::Allocate(device_, bytes));
  return std::make_unique<CudaBuffer>(std::move(memory));
}

absl::Status CudaBackend::Upload(std::span<const std::byte> host, Buffer& to, int64_t offset) {
  RENGA_RETURN_IF_ERROR(CheckRange(to, offset, host.size()));
  rope_key_.reset();
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

// ---- Linear -------------------------------------------------------------------------------------

absl::Status CudaBackend::PrepareActivations(ConstRowsView in, bool quantized, bool plain,
                                             cuda::LinearArgs& args) {
  const int64_t groups = Ceil(in.columns, cuda::kGroup);
  const int64_t items = in.rows * groups;
  if (quantized) {
    const int64_t bytes =
        items * (cuda::kGroup + static_cast<int64_t>(sizeof(cuda::ActivationGroup)));
    RENGA_ASSIGN_OR_RETURN(std::byte* const memory, codes_.Reserve(device_, bytes));
    auto* const codes = reinterpret_cast<int8_t*>(memory);
    auto* const scales = reinterpret_cast<cuda::ActivationGroup*>(memory + items * cuda::kGroup);
    args.codes = codes;
    args.scales = scales;
    RENGA_RETURN_IF_ERROR(LaunchWarps(Kernel::kQuantize, items,
                                      cuda::QuantizeArgs{.in = in.data,
                                                         .in_stride = in.stride,
                                                         .tokens = in.rows,
                                                         .groups = groups,
                                                         .codes = codes,
                                                         .scales = scales}));
  }
  if (!plain) return absl::OkStatus();
  RENGA_ASSIGN_OR_RETURN(std::byte* const memory,
                         floats_.Reserve(device_, items * cuda::kGroup * 4));
  auto* const floats = reinterpret_cast<float*>(memory);
  args.floats = floats;
  return LaunchThreads(Kernel::kPad, items * cuda::kGroup,
                       cuda::PadArgs{.in = in.data,
                                     .in_stride = in.stride,
                                     .tokens = in.rows,
                                     .columns = in.columns,
                                     .groups = groups,
                                     .out = floats});
}

absl::Status CudaBackend::LaunchLinear(const CudaMatrix& matrix, const cuda::LinearArgs& args) {
  if (args.tokens <= cuda::kFewTokens) {
    return Launch(matrix.KernelFor(args.tokens),
                  {Ceil(matrix.rows(), cuda::kVectorRows), 1, cuda::kVectorThreads}, args);
  }
  const bool tensor = tensor_cores_ && matrix.quantized();
  return Launch(tensor ? matrix.TensorKernel() : matrix.KernelFor(args.tokens),
                {Ceil(args.tokens, tensor ? cuda::kTensorTokens : cuda::kTileTokens),
                 Ceil(matrix.rows(), cuda::kTileRows), cuda::kTileThreads},
                args);
}

absl::Status CudaBackend::LinearOfTokens(ConstRowsView in, std::span<const LinearOutput> outputs) {
  bool quantized = false;
  bool plain = false;
  for (const LinearOutput& output : outputs) {
    (static_cast<const CudaMatrix*>(output.matrix)->quantized() ? quantized : plain) = true;
  }
  cuda::LinearArgs args = {};
  RENGA_RETURN_IF_ERROR(PrepareActivations(in, quantized, plain, args));
  args.tokens = in.rows;
  for (const LinearOutput& output : outputs) {
    const auto& matrix = *static_cast<const CudaMatrix*>(output.matrix);
    args.matrix = matrix.planes();
    args.bias = output.bias;
    args.out = output.out.data;
    args.out_stride = output.out.stride;
    RENGA_RETURN_IF_ERROR(LaunchLinear(matrix, args));
  }
  return absl::OkStatus();
}

absl::Status CudaBackend::Linear(ConstRowsView in, std::span<const LinearOutput> outputs) {
  RENGA_RETURN_IF_ERROR(CheckLinear(in, outputs));
  bool plain = false;
  for (const LinearOutput& output : outputs) {
    const auto* matrix = dynamic_cast<const CudaMatrix*>(output.matrix);
    if (matrix == nullptr) return absl::InvalidArgumentError("a matrix of another backend");
    plain = plain || !matrix->quantized();
  }
  if (outputs.empty()) return absl::OkStatus();
  const int64_t step =
      plain ? std::clamp((in.rows + 1) / 2, kFewestPlainTokens, kLinearTokens) : kLinearTokens;
  std::vector<LinearOutput> part(outputs.begin(), outputs.end());
  for (int64_t first = 0; first < in.rows; first += step) {
    const int64_t count = std::min(step, in.rows - first);
    for (size_t i = 0; i < part.size(); ++i) {
      part[i].out = outputs[i].out;
      part[i].out.data += first * part[i].out.stride;
      part[i].out.rows = count;
    }
    RENGA_RETURN_IF_ERROR(
        LinearOfTokens({in.data + first * in.stride, count, in.columns, in.stride}, part));
  }
  return absl::OkStatus();
}

// ---- Rows ---------------------------------------------------------------------------------------

absl::Status CudaBackend::RmsNorm(ConstRowsView in, const float* weight, float epsilon,
                                  RowsView out) {
  RENGA_RETURN_IF_ERROR(CheckRmsNorm(in, weight, out));
  if (in.rows == 0 || in.columns == 0) return absl::OkStatus();
  return Launch(Kernel::kRmsNorm, {in.rows, 1, cuda::kRowThreads},
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
  return LaunchWarps(Kernel::kHeadRmsNorm, rows.rows * (rows.columns / head_dim),
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
  return LaunchThreads(kernel, out.rows * out.columns,
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
  return LaunchThreads(Kernel::kAdd, out.rows * out.columns,
                       cuda::RowsArgs{.a = in.data,
                                      .a_stride = in.stride,
                                      .b = nullptr,
                                      .b_stride = 0,
                                      .out = out.data,
                                      .out_stride = out.stride,
                                      .rows = out.rows,
                                      .columns = out.columns});
}

// ---- Rope ---------------------------------------------------------------------------------------

// All layers of a step rotate by the same angles: made once.
absl::Status CudaBackend::PrepareRopeTable(std::span<const int64_t> positions,
                                           const RopeArgs& args) {
  RENGA_ASSIGN_OR_RETURN(const int64_t* const on_device, positions_.Put(device_, positions));
  const RopeKey key = {positions_.changes(), args.dims, args.base, args.position_scale,
                       args.factors};
  if (rope_key_ == key) return absl::OkStatus();
  rope_key_.reset();
  const int64_t rows = static_cast<int64_t>(positions.size());
  const int64_t pairs = args.dims / 2;
  RENGA_ASSIGN_OR_RETURN(std::byte* const memory, rope_.Reserve(device_, rows * pairs * 8));
  auto* const table = reinterpret_cast<float*>(memory);
  RENGA_RETURN_IF_ERROR(LaunchThreads(Kernel::kRopeTable, rows * pairs,
                                      cuda::RopeTableArgs{.positions = on_device,
                                                          .rows = rows,
                                                          .pairs = pairs,
                                                          .dims = static_cast<double>(args.dims),
                                                          .base = args.base,
                                                          .position_scale = args.position_scale,
                                                          .factors = args.factors,
                                                          .table = table}));
  rope_table_ = table;
  rope_key_ = key;
  return absl::OkStatus();
}

absl::Status CudaBackend::Rope(RowsView rows, std::span<const int64_t> positions,
                               const RopeArgs& args) {
  RENGA_RETURN_IF_ERROR(CheckRope(rows, positions, args));
  const int64_t pairs = args.dims / 2;
  const int64_t heads = rows.columns / args.head_dim;
  if (rows.rows * heads * pairs == 0) return absl::OkStatus();
  RENGA_RETURN_IF_ERROR(PrepareRopeTable(positions, args));
  return LaunchThreads(Kernel::kRope, rows.rows * heads * pairs,
                       cuda::RopeArgs{.rows = rows.data,
                                      .stride = rows.stride,
                                      .row_count = rows.rows,
                                      .heads = heads,
                                      .head_dim = args.head_dim,
                                      .pairs = pairs,
                                      .neighbours = args.neighbours ? 1 : 0,
                                      .table = rope_table_});
}

// ---- Attention ----------------------------------------------------------------------------------

cuda::KvPlanes PlanesOf(const KvCacheView& cache) {
  return {.keys = reinterpret_cast<uint8_t*>(cache.keys),
          .values = reinterpret_cast<uint8_t*>(cache.values),
          .head_bytes = KvLayout(cache).head_bytes(),
          .block_tokens = cache.block_tokens,
          .kv_heads = cache.n_kv_heads,
          .head_dim = cache.head_dim};
}

cuda::KvFormat FormatOf(const KvCacheView& cache) {
  if (cache.type == base::DataType::kF32) return cuda::kKvF32;
  return cache.type == base::DataType::kF16 ? cuda::kKvF16 : cuda::kKvQ8;
}

absl::Status CudaBackend::StoreKv(ConstRowsView keys, ConstRowsView values,
                                  const KvCacheView& cache, std::span<const SequenceSlot> slots) {
  RENGA_RETURN_IF_ERROR(CheckStoreKv(keys, values, cache, slots));
  RENGA_RETURN_IF_ERROR(cuda::CheckCacheLimits(cache, slots));
  const std::vector<cuda::StoredRow> rows = cuda::PlanStores(cache, slots);
  if (rows.empty()) return absl::OkStatus();
  RENGA_ASSIGN_OR_RETURN(const cuda::StoredRow* const on_device,
                         stored_rows_.Put(device_, std::span(rows)));
  const int64_t row_count = static_cast<int64_t>(rows.size());
  return LaunchWarps(Kernel::kStoreKv, row_count * cache.n_kv_heads * Ceil(cache.head_dim, 32),
                     cuda::StoreKvArgs{.keys = keys.data,
                                       .key_stride = keys.stride,
                                       .values = values.data,
                                       .value_stride = values.stride,
                                       .cache = PlanesOf(cache),
                                       .format = FormatOf(cache),
                                       .rows = on_device,
                                       .row_count = row_count});
}

// The kernel of a KV format and of as many numbers a lane as the head needs.
Kernel AttentionKernel(cuda::KvFormat format, int64_t head_dim) {
  constexpr Kernel kFirst[] = {Kernel::kAttention_F16_2, Kernel::kAttention_F32_2,
                               Kernel::kAttention_Q8_2};
  const int step = head_dim <= 64 ? 0 : head_dim <= 128 ? 1 : 2;
  return static_cast<Kernel>(static_cast<int>(kFirst[format]) + step);
}

absl::Status CudaBackend::Attention(const AttentionArgs& args) {
  RENGA_RETURN_IF_ERROR(CheckAttention(args));
  RENGA_RETURN_IF_ERROR(cuda::CheckCacheLimits(args.cache, args.slots));
  const int64_t tile_queries =
      args.cache.head_dim <= 128 ? cuda::kQueriesOf<4> : cuda::kQueriesOf<8>;
  const cuda::AttentionPlan plan = cuda::PlanAttention(args, tile_queries);
  if (plan.tiles.empty()) return absl::OkStatus();
  cuda::AttentionArgs on_device = {.queries = args.queries.data,
                                   .query_stride = args.queries.stride,
                                   .out = args.out.data,
                                   .out_stride = args.out.stride,
                                   .cache = PlanesOf(args.cache),
                                   .group = args.n_heads / args.cache.n_kv_heads,
                                   .scale = args.scale,
                                   .window = args.window > 0 ? args.window : kNoWindow,
                                   .tiles = nullptr,
                                   .tile_count = static_cast<int64_t>(plan.tiles.size()),
                                   .blocks = nullptr,
                                   .spans = plan.spans,
                                   .part_queries = plan.part_queries,
                                   .parts = nullptr};
  RENGA_ASSIGN_OR_RETURN(on_device.tiles, tiles_.Put(device_, std::span(plan.tiles)));
  RENGA_ASSIGN_OR_RETURN(on_device.blocks, blocks_.Put(device_, std::span(plan.blocks)));
  if (plan.spans > 0) {
    RENGA_ASSIGN_OR_RETURN(std::byte* const parts, parts_.Reserve(device_, plan.part_floats * 4));
    on_device.parts = reinterpret_cast<float*>(parts);
  }
  const int64_t warps = on_device.tile_count * args.cache.n_kv_heads;
  const int64_t block_warps = cuda::kAttentionThreads / 32;
  RENGA_RETURN_IF_ERROR(Launch(
      AttentionKernel(FormatOf(args.cache), args.cache.head_dim),
      {Ceil(warps * std::max<int64_t>(plan.spans, 1), block_warps), 1, cuda::kAttentionThreads},
      on_device));
  if (plan.spans == 0) return absl::OkStatus();
  return Launch(Kernel::kJoinSpans,
                {Ceil(warps * plan.part_queries, block_warps), 1, cuda::kAttentionThreads},
                on_device);
}

// ---- TopK ---------------------------------------------------------------------------------------

absl::Status CudaBackend::TopOfRows(ConstRowsView logits, int64_t k, std::span<TopRow> result) {
  const int64_t chunks = Ceil(logits.columns, cuda::kTopChunk);
  const int64_t items = logits.rows * chunks;
  // Sums, keys, maxima: in this order each is aligned.
  const int64_t bytes = items * (8 + 8 * k + 4);
  RENGA_ASSIGN_OR_RETURN(std::byte* const memory, top_.Reserve(device_, bytes));
  RENGA_RETURN_IF_ERROR(
      Launch(Kernel::kTopK, {items, 1, cuda::kTopThreads},
             cuda::TopKArgs{.logits = logits.data,
                            .stride = logits.stride,
                            .rows = logits.rows,
                            .columns = logits.columns,
                            .k = k,
                            .keys = reinterpret_cast<uint64_t*>(memory + items * 8),
                            .largest = reinterpret_cast<float*>(memory + items * (8 + 8 * k)),
                            .sums = reinterpret_cast<double*>(memory)}));
  std::vector<std::byte> answers(static_cast<size_t>(bytes));
  RENGA_RETURN_IF_ERROR(device_->Download(memory, answers));
  std::vector<double> sums(static_cast<size_t>(items));
  std::vector<uint64_t> keys(static_cast<size_t>(items * k));
  std::vector<float> largest(static_cast<size_t>(items));
  std::memcpy(sums.data(), answers.data(), sums.size() * 8);
  if (k > 0) std::memcpy(keys.data(), answers.data() + items * 8, keys.size() * 8);
  std::memcpy(largest.data(), answers.data() + items * (8 + 8 * k), largest.size() * 4);
  for (size_t r = 0; r < result.size(); ++r) {
    const auto width = static_cast<size_t>(chunks);
    cuda::MergeNormaliser(std::span(largest).subspan(r * width, width),
                          std::span(sums).subspan(r * width, width), result[r]);
    const size_t row_keys = width * static_cast<size_t>(k);
    cuda::MergeTop(std::span(keys).subspan(r * row_keys, row_keys), k, result[r]);
  }
  return absl::OkStatus();
}

// More columns than the kernel finds: seldom asked for.
absl::Status CudaBackend::TopOnHost(ConstRowsView logits, int64_t k, std::span<TopRow> result) {
  std::vector<float> row(static_cast<size_t>(logits.columns));
  for (int64_t r = 0; r < logits.rows; ++r) {
    RENGA_RETURN_IF_ERROR(
        device_->Download(reinterpret_cast<const std::byte*>(logits.data + r * logits.stride),
                          std::as_writable_bytes(std::span(row))));
    TopRow& top = result[static_cast<size_t>(r)];
    top.indices = cpu::TopColumns(row, k);
    top.logits.clear();
    for (const int32_t i : top.indices) top.logits.push_back(row[static_cast<size_t>(i)]);
  }
  return absl::OkStatus();
}

absl::Status CudaBackend::TopK(ConstRowsView logits, int64_t k, std::span<TopRow> result) {
  RENGA_RETURN_IF_ERROR(CheckTopK(logits, result));
  k = std::clamp<int64_t>(k, 0, logits.columns);
  const int64_t found = k <= cuda::kMostTop ? k : 0;
  const int64_t row_bytes = Ceil(logits.columns, cuda::kTopChunk) * (8 + 8 * found + 4);
  const int64_t step = std::max<int64_t>(1, kMostTopBytes / row_bytes);
  for (int64_t first = 0; first < logits.rows; first += step) {
    const int64_t count = std::min(step, logits.rows - first);
    const ConstRowsView part(logits.data + first * logits.stride, count, logits.columns,
                             logits.stride);
    RENGA_RETURN_IF_ERROR(TopOfRows(
        part, found, result.subspan(static_cast<size_t>(first), static_cast<size_t>(count))));
  }
  return found == k ? absl::OkStatus() : TopOnHost(logits, k, result);
}

}  // namespace

std::unique_ptr<Backend> CreateCudaBackend(std::shared_ptr<cuda::Device> device, CudaPath path) {
  return std::make_unique<CudaBackend>(std::move(device), path);
}

}  // namespace renga::kernels

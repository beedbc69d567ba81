// The whole contract between the engine and a device's arithmetic: memory, weights, about a dozen
// ops over typed views. The reference backend (reference/) is plain loops and is the judge of all
// others in one conformance suite.
//
// Promise of every backend: a result row depends only on its own input row (and its sequence's KV
// state), never on how many rows are in the call, on the thread count, or on where a matrix's rows
// were cut. Each output element has one order of summation, which path_name() stands for: equal
// names give equal bits.
//
// Threads: one thread calls a backend at a time. Calls may return before the work is done;
// Synchronize() waits. Views point into Buffers of the same backend (device memory).
#ifndef RENGA_WORKER_KERNELS_BACKEND_H_
#define RENGA_WORKER_KERNELS_BACKEND_H_

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "base/communicator.h"
#include "base/data_type.h"
#include "base/thread_pool.h"

namespace renga::kernels {

// Float32 rows in device memory, one per token: row r begins at data + r * stride.
struct RowsView {
  float* data = nullptr;
  int64_t rows = 0;
  int64_t columns = 0;
  int64_t stride = 0;  // in floats, >= columns
};
struct ConstRowsView {
  const float* data = nullptr;
  int64_t rows = 0;
  int64_t columns = 0;
  int64_t stride = 0;

  ConstRowsView() = default;
  ConstRowsView(const float* d, int64_t r, int64_t c, int64_t s)
      : data(d), rows(r), columns(c), stride(s) {}
  ConstRowsView(const RowsView& view)  // NOLINT(google-explicit-constructor): a view narrows
      : data(view.data), rows(view.rows), columns(view.columns), stride(view.stride) {}
};

// Device memory; freed when destroyed. 64-byte aligned or better. For host backends data() is an
// ordinary pointer.
class Buffer {
 public:
  virtual ~Buffer() = default;
  virtual std::byte* data() = 0;
  virtual int64_t size_bytes() const = 0;
};

// A weight matrix (rows outputs x columns inputs) in the layout the backend likes best.
class WeightMatrix {
 public:
  virtual ~WeightMatrix() = default;
  virtual base::DataType type() const = 0;
  virtual int64_t rows() const = 0;
  virtual int64_t columns() const = 0;
};

// The bytes of a matrix in a backend's layout, and what keeps them in memory.
struct PackedBytes {
  std::span<const std::byte> bytes;
  std::shared_ptr<const void> owner;
};

// out = matrix * in (+ bias). Several of them with the same input run as one group.
struct LinearOutput {
  const WeightMatrix* matrix = nullptr;
  const float* bias = nullptr;  // device memory, matrix->rows() numbers, or null
  RowsView out;                 // in.rows x matrix->rows()
};

struct RopeArgs {
  bool neighbours = true;  // pairs (2i, 2i+1); else halves (i, i + dims/2)
  int64_t head_dim = 0;
  int64_t dims = 0;  // rotated numbers of each head, even, <= head_dim
  double base = 10000.0;
  double position_scale = 1.0;     // positions are divided by this
  const float* factors = nullptr;  // device memory: dims/2 divisors of the frequencies, or null
};

// The paged cache of one layer, of kF16, kF32 or kQ8_0; kv_layout.h says what lies where. Keys and
// values take the same number of bytes, each block's and KV head's after the other's.
struct KvCacheView {
  std::byte* keys = nullptr;
  std::byte* values = nullptr;
  base::DataType type = base::DataType::kF16;
  int64_t n_blocks = 0;
  int64_t block_tokens = 0;
  int64_t n_kv_heads = 0;
  int64_t head_dim = 0;
};

// Consecutive rows of one sequence inside a step.
struct SequenceSlot {
  int64_t first_row = 0;  // in the step's activation rows
  int64_t row_count = 0;
  int64_t first_position = 0;
  std::span<const int32_t> blocks;  // host memory; covers first_position + row_count positions
};

struct AttentionArgs {
  ConstRowsView queries;  // rows x (n_heads * head_dim)
  RowsView out;           // the same shape
  KvCacheView cache;      // already holds this step's keys and values
  int64_t n_heads = 0;
  float scale = 0;  // of the scores, 1/sqrt(head_dim) as a rule
  // Above 0: the row at position p attends to positions p - window + 1 .. p only.
  int64_t window = 0;
  std::span<const SequenceSlot> slots;
};

// The best rows of a logits row and its softmax normaliser.
struct TopRow {
  std::vector<int32_t> indices;  // columns, best first; ties: lower index first
  std::vector<float> logits;
  float max_logit = 0;
  double sum_exp = 0;  // sum of exp(logit - max_logit)
};

class Backend {
 public:
  virtual ~Backend() = default;

  // Fixes the order of summation and how activations are quantised: "cpu-avx2-1".
  virtual absl::string_view path_name() const = 0;

  // This machine's threads that compute the operations, free for other loops between these: two
  // pools would hold each other's threads up. nullptr: the device computes by itself.
  virtual base::ThreadPool* threads() { return nullptr; }

  // Memory. kResourceExhausted leaves the device usable.
  virtual absl::StatusOr<std::unique_ptr<Buffer>> Allocate(int64_t bytes) = 0;
  virtual absl::Status Upload(std::span<const std::byte> host, Buffer& to, int64_t offset) = 0;
  virtual absl::Status Download(Buffer& from, int64_t offset, std::span<std::byte> host) = 0;

  // Weights: create once, then give the rows in the file's format, in any order and in pieces of
  // whole rows. kUnimplemented for a type without even a slow path; kInvalidArgument for shapes
  // that don't fit the type's block.
  virtual int64_t MatrixBytes(base::DataType type, int64_t rows, int64_t columns) const = 0;
  virtual absl::StatusOr<std::unique_ptr<WeightMatrix>> CreateMatrix(base::DataType type,
                                                                     int64_t rows,
                                                                     int64_t columns) = 0;
  virtual absl::Status LoadRows(WeightMatrix& matrix, int64_t first_row,
                                std::span<const std::byte> rows) = 0;
  // How many threads are worth taking to load a matrix by LoadRowsAlone. 1: LoadRows is all.
  virtual int loading_threads() const { return 1; }
  // LoadRows by the calling thread alone; several may call it at once for different rows of a
  // matrix. kUnimplemented where one thread loads.
  virtual absl::Status LoadRowsAlone(WeightMatrix& /*matrix*/, int64_t /*first_row*/,
                                     std::span<const std::byte> /*rows*/) {
    return absl::UnimplementedError("this device loads rows one call after the other");
  }

  // A layout worth keeping beyond this process: backends with equal names pack a matrix into equal
  // bytes. "": matrices are always loaded row by row.
  virtual absl::string_view layout_name() const { return ""; }
  // The matrix as it lies in memory: MatrixBytes many. Empty without a layout worth keeping.
  virtual std::span<const std::byte> BytesOf(const WeightMatrix& /*matrix*/) const { return {}; }
  // A matrix that computes from these bytes, once given by BytesOf under the same layout name; they
  // are not copied. kInvalidArgument for another number of bytes.
  virtual absl::StatusOr<std::unique_ptr<WeightMatrix>> AdoptMatrix(base::DataType /*type*/,
                                                                    int64_t /*rows*/,
                                                                    int64_t /*columns*/,
                                                                    PackedBytes /*packed*/) {
    return absl::UnimplementedError("this device loads matrices row by row");
  }

  // Ops. kInvalidArgument when shapes disagree. In-place use is allowed only where said.
  // out = in / rms(in) * weight, rms over the columns with epsilon inside the root. May be in
  // place.
  virtual absl::Status RmsNorm(ConstRowsView in, const float* weight, float epsilon,
                               RowsView out) = 0;
  // The same over each head of head_dim columns, in place; weight has head_dim numbers.
  virtual absl::Status HeadRmsNorm(RowsView rows, int64_t head_dim, const float* weight,
                                   float epsilon) = 0;
  virtual absl::Status Linear(ConstRowsView in, std::span<const LinearOutput> outputs) = 0;
  // RmsNorm, or SiluGate, then Linear of what they gave: the same bits, in fewer passes where a
  // backend can. No output overlaps the inputs.
  virtual absl::Status RmsNormLinear(ConstRowsView in, const float* weight, float epsilon,
                                     RowsView normed, std::span<const LinearOutput> outputs);
  virtual absl::Status SiluGateLinear(ConstRowsView gate, ConstRowsView up, RowsView gated,
                                      std::span<const LinearOutput> outputs);
  // In place; positions: host memory, one per row.
  virtual absl::Status Rope(RowsView rows, std::span<const int64_t> positions,
                            const RopeArgs& args) = 0;
  // Writes the slots' key and value rows (rows x n_kv_heads * head_dim) into the cache.
  virtual absl::Status StoreKv(ConstRowsView keys, ConstRowsView values, const KvCacheView& cache,
                               std::span<const SequenceSlot> slots) = 0;
  // Causal: the row at position p attends to positions 0..p of its sequence, or to the last
  // args.window of them.
  virtual absl::Status Attention(const AttentionArgs& args) = 0;
  // out = silu(gate) * up; out may be gate or up.
  virtual absl::Status SiluGate(ConstRowsView gate, ConstRowsView up, RowsView out) = 0;
  // out = gelu(gate) * up, in the form with tanh; out may be gate or up. kUnimplemented on a device
  // that has no such kernel.
  virtual absl::Status GeluGate(ConstRowsView gate, ConstRowsView up, RowsView out);
  // out += in.
  virtual absl::Status Add(ConstRowsView in, RowsView out) = 0;
  // result[r] for each row of logits; k <= 0: only the normaliser; k above the columns: all of
  // them. A row with NaN gives some k distinct columns. Waits for the result.
  virtual absl::Status TopK(ConstRowsView logits, int64_t k, std::span<TopRow> result) = 0;

  virtual absl::Status Synchronize() = 0;

  // Makes a group of the members' devices, in the ranks of `others`, which outlives it: its
  // sums_on_devices() is true. All members of `others` call this side by side, and all of them end
  // alike: with a group, or with kFailedPrecondition, whose sentence says what which member lacks;
  // then `others` is as good as before. Its own errors break both.
  virtual absl::StatusOr<std::unique_ptr<base::Communicator>> JoinDeviceGroup(
      base::Communicator& others);
};

}  // namespace renga::kernels

#endif  // RENGA_WORKER_KERNELS_BACKEND_H_

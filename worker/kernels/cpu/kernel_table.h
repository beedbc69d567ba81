// What a path is made of: plain functions over plain pointers, one table per instruction set. The
// backend checks shapes, shares out the work and calls these; nothing here allocates or fails.
#ifndef RENGA_WORKER_KERNELS_CPU_KERNEL_TABLE_H_
#define RENGA_WORKER_KERNELS_CPU_KERNEL_TABLE_H_

#include <cstddef>
#include <cstdint>

#include "base/data_type.h"
#include "worker/kernels/cpu/activations.h"

namespace renga::kernels::cpu {

// One matrix times all tokens of a call.
struct MatmulTask {
  const std::byte* panels = nullptr;  // packed_matrix.h
  int64_t rows = 0;
  int64_t columns = 0;
  // kFloat: rows `input_stride` floats apart; else blocks ordered [block][token].
  const std::byte* activations = nullptr;
  int64_t input_stride = 0;
  int64_t tokens = 0;
  // How far ahead memory is asked for weights that one token, or a few, are multiplied with. 0: as
  // far as the path has found best.
  int64_t ahead_bytes = 0;
  const float* bias = nullptr;  // or null
  float* out = nullptr;         // token t's row at out + t * out_stride
  int64_t out_stride = 0;
};

// Computes the outputs of panels [begin, end).
using MatmulFunction = void (*)(const MatmulTask& task, int64_t begin, int64_t end);

struct FormatKernels {
  ActivationKind activations = ActivationKind::kFloat;
  MatmulFunction matmul = nullptr;
};

// What the cells of a KV cache hold (kv_layout.h).
enum class KvCells : int8_t { kFloats, kHalves, kCodes };
// kCodes: numbers of a head that share a scale; a multiple of every path's lanes.
inline constexpr int64_t kAttentionScaled = 32;

// Rows of queries of one sequence against one layer's cache.
struct AttentionTask {
  const float* queries = nullptr;  // the slot's first row
  int64_t query_stride = 0;
  float* out = nullptr;
  int64_t out_stride = 0;
  int64_t rows = 0;
  int64_t first_position = 0;  // of the first row
  const std::byte* keys = nullptr;
  const std::byte* values = nullptr;
  KvCells cells = KvCells::kHalves;
  int64_t head_bytes = 0;  // of the keys, or values, of one block and KV head
  const int32_t* blocks = nullptr;
  int64_t block_tokens = 0;
  int64_t kv_heads = 0;
  int64_t heads_per_kv = 0;
  int64_t head_dim = 0;
  float scale = 0;
  int64_t window = 0;  // positions that a row sees, up to its own; 0: all
};

// The part of a task that one call computes: rows [begin, begin + count), count <= kAttentionRows,
// of the queries that share a KV head.
struct AttentionRows {
  int64_t kv_head = 0;
  int64_t begin = 0;
  int64_t count = 0;
};
inline constexpr int64_t kAttentionRows = 8;

// Positions that are summed up on their own, so that a long context can be shared out. Part of the
// order of summation.
inline constexpr int64_t kAttentionSpan = 512;

struct CpuKernels {
  const char* path_name;  // "cpu-avx2-1": what fixes the bits
  int lanes;              // rows per panel

  FormatKernels (*format)(base::DataType type);
  // Rounds one token's row into its blocks; `out` is its first block, the next `tokens` on.
  void (*quantize)(ActivationKind kind, const float* in, int64_t columns, int64_t tokens,
                   std::byte* out);

  void (*rms_norm)(const float* in, const float* weight, float epsilon, int64_t n, float* out);
  void (*silu_gate)(const float* gate, const float* up, int64_t n, float* out);
  void (*gelu_gate)(const float* gate, const float* up, int64_t n, float* out);
  void (*add)(const float* in, int64_t n, float* out);
  // Pairs (2i, 2i + 1), or (i, i + pairs), rotated by angles with these cosines and sines.
  void (*rotate)(bool neighbours, const float* cosines, const float* sines, int64_t pairs,
                 float* head);
  void (*to_half)(const float* in, int64_t n, std::byte* out);
  float (*largest)(const float* in, int64_t n);
  // sum of exp(in - largest)
  double (*sum_exp)(const float* in, int64_t n, float largest);

  // Bytes of working memory of one attention call, and of what is known of one span's rows.
  int64_t (*attention_scratch)(const AttentionTask& task);
  int64_t (*attention_part)(const AttentionTask& task, int64_t rows);
  // All positions at once; or span by span, each to its part, and the parts, side by side, joined.
  void (*attention)(const AttentionTask& task, const AttentionRows& rows, std::byte* scratch);
  void (*attention_span)(const AttentionTask& task, const AttentionRows& rows, int64_t span,
                         std::byte* scratch, std::byte* part);
  void (*attention_join)(const AttentionTask& task, const AttentionRows& rows, int64_t spans,
                         std::byte* scratch, std::byte* parts);
};

const CpuKernels& PortableKernels();
#if defined(__x86_64__)
const CpuKernels& Ssse3Kernels();
const CpuKernels& AvxKernels();
const CpuKernels& Avx2Kernels();
const CpuKernels& AvxVnniKernels();
const CpuKernels& Avx512VnniKernels();
const CpuKernels& AmxKernels();
#elif defined(__aarch64__)
const CpuKernels& NeonKernels();
const CpuKernels& NeonDotprodKernels();
const CpuKernels& NeonI8mmKernels();
#endif

}  // namespace renga::kernels::cpu

#endif  // RENGA_WORKER_KERNELS_CPU_KERNEL_TABLE_H_

// Every kernel by name, with what it is given: one struct by value. The host launches by these
// names; the device code and the emulation define one function for each.
#ifndef RENGA_WORKER_KERNELS_CUDA_KERNEL_LIST_H_
#define RENGA_WORKER_KERNELS_CUDA_KERNEL_LIST_H_

#include <cstdint>

namespace renga::kernels::cuda {

// Numbers of a row of weights that share a scale of the activations. Group g of a row belongs to
// chain g % kChains; see device/linear.h.
inline constexpr int kGroup = 32;
inline constexpr int kChains = 8;

// What would be padding in the structs below has a name: equal launches have equal bytes.

// A matrix in device memory: the planes of its format (packed_weights.h), each row after row.
struct MatrixPlanes {
  const uint8_t* plane[4];
  int64_t rows;
  int64_t groups;  // of a row
};

// Of 32 activations: value = scale * code; the sums are those of the first and last 16 codes.
struct alignas(8) ActivationGroup {
  float scale;
  int16_t sums[2];
};

struct QuantizeArgs {
  const float* in;
  int64_t in_stride;
  int64_t tokens;
  int64_t groups;           // of a token
  int8_t* codes;            // tokens x (groups * 32)
  ActivationGroup* scales;  // tokens x groups
};

// Rows side by side, filled up with zeros to whole groups.
struct PadArgs {
  const float* in;
  int64_t in_stride;
  int64_t tokens;
  int64_t columns;
  int64_t groups;
  float* out;  // tokens x (groups * 32)
};

struct LinearArgs {
  MatrixPlanes matrix;
  const int8_t* codes;            // of quantised types
  const ActivationGroup* scales;  // of quantised types
  const float* floats;            // of plain types: groups * 32 numbers of each token
  int64_t floats_stride;          // from one token to the next, a multiple of 4
  int64_t tokens;
  const float* bias;  // or null
  float* out;
  int64_t out_stride;
};

struct RowsArgs {
  const float* a;
  int64_t a_stride;
  const float* b;
  int64_t b_stride;
  float* out;
  int64_t out_stride;
  int64_t rows;
  int64_t columns;
};

// What the members of a group gave, side by side: added up in their order.
struct SumPartsArgs {
  const float* parts;  // members x count
  int64_t members;
  int64_t count;
  float* out;  // count; not among the parts
};

struct NormArgs {
  const float* in;
  int64_t in_stride;
  const float* weight;
  float epsilon;
  int32_t unused = 0;
  float* out;
  int64_t out_stride;
  int64_t rows;
  int64_t columns;   // of a row
  int64_t head_dim;  // of HeadRmsNorm
};

struct RopeTableArgs {
  const int64_t* positions;
  int64_t rows;
  int64_t pairs;
  double dims;
  double base;
  double position_scale;
  const float* factors;  // or null
  float* table;          // rows x pairs x (cosine, sine)
};

struct RopeArgs {
  float* rows;
  int64_t stride;
  int64_t row_count;
  int64_t heads;
  int64_t head_dim;
  int64_t pairs;
  int32_t neighbours;
  int32_t unused = 0;
  const float* table;
};

enum KvFormat : int32_t { kKvF16, kKvF32, kKvQ8 };

// The paged cache of one layer: kv_layout.h.
struct KvPlanes {
  uint8_t* keys;
  uint8_t* values;
  int64_t head_bytes;  // of a block's keys, or values, of one head
  int64_t block_tokens;
  int64_t kv_heads;
  int64_t head_dim;
};

// A row that is stored: where it lies in the cache.
struct StoredRow {
  int32_t row;
  int32_t block;
  int32_t token;  // in the block
};

struct StoreKvArgs {
  const float* keys;
  int64_t key_stride;
  const float* values;
  int64_t value_stride;
  KvPlanes cache;
  int32_t format;
  int32_t unused = 0;
  const StoredRow* rows;
  int64_t row_count;
};

// Queries of one KV head that a warp takes at once; a slot's queries are its rows' heads, row by
// row.
struct AttentionTile {
  int32_t first_row;       // of the slot, in the activations
  int32_t first_block;     // of the slot, in AttentionArgs::blocks
  int64_t first_position;  // of the slot
  int32_t first_query;
  int32_t queries;
};

struct AttentionArgs {
  const float* queries;
  int64_t query_stride;
  float* out;
  int64_t out_stride;
  KvPlanes cache;
  int64_t group;  // query heads of a KV head
  float scale;
  int32_t unused = 0;
  int64_t window;  // positions that a query sees, its own the last
  const AttentionTile* tiles;
  int64_t tile_count;
  const int32_t* blocks;
  int64_t spans;         // that are shared out; 0: each warp goes through all spans of its tile
  int64_t part_queries;  // most queries of a tile
  float* parts;  // [tile][kv head][span][query of part_queries][head_dim + 2]; null when spans is 0
};

struct TopKArgs {
  const float* logits;
  int64_t stride;
  int64_t rows;
  int64_t columns;
  int64_t k;
  uint64_t* keys;  // rows x chunks x k, best first: TopKey
  float* largest;  // rows x chunks
  double* sums;    // rows x chunks
};
inline constexpr int64_t kTopChunk = 4096;

// Products of registers, for the benchmark of a card's peak.
struct PeakArgs {
  int32_t rounds;
  int32_t unused = 0;
  int32_t* out;  // one for each thread of the grid
};

#define RENGA_CUDA_QUANTIZED_FORMATS(X) \
  X(Q8_0)                               \
  X(Q4_0) X(Q4_1) X(Q5_0) X(Q5_1) X(Q2_K) X(Q3_K) X(Q4_K) X(Q5_K) X(Q6_K) X(IQ4_NL) X(IQ4_XS)
#define RENGA_CUDA_PLAIN_FORMATS(X) X(F32) X(F16) X(BF16)
// (KV format, numbers of a head that a lane holds)
#define RENGA_CUDA_ATTENTION_SHAPES(X) \
  X(F16, 2) X(F16, 4) X(F16, 8) X(F32, 2) X(F32, 4) X(F32, 8) X(Q8, 2) X(Q8, 4) X(Q8, 8)

// Three kernels of each format of weights, in this order.
#define RENGA_CUDA_LINEAR_NAMES(X, Format) \
  X(VectorOne_##Format) X(VectorFew_##Format) X(Tiles_##Format)
#define RENGA_CUDA_KERNELS(X)                                                                   \
  RENGA_CUDA_LINEAR_NAMES(X, Q8_0)                                                              \
  RENGA_CUDA_LINEAR_NAMES(X, Q4_0)                                                              \
  RENGA_CUDA_LINEAR_NAMES(X, Q4_1)                                                              \
  RENGA_CUDA_LINEAR_NAMES(X, Q5_0)                                                              \
  RENGA_CUDA_LINEAR_NAMES(X, Q5_1)                                                              \
  RENGA_CUDA_LINEAR_NAMES(X, Q2_K)                                                              \
  RENGA_CUDA_LINEAR_NAMES(X, Q3_K)                                                              \
  RENGA_CUDA_LINEAR_NAMES(X, Q4_K)                                                              \
  RENGA_CUDA_LINEAR_NAMES(X, Q5_K)                                                              \
  RENGA_CUDA_LINEAR_NAMES(X, Q6_K)                                                              \
  RENGA_CUDA_LINEAR_NAMES(X, IQ4_NL)                                                            \
  RENGA_CUDA_LINEAR_NAMES(X, IQ4_XS)                                                            \
  RENGA_CUDA_LINEAR_NAMES(X, F32)                                                               \
  RENGA_CUDA_LINEAR_NAMES(X, F16)                                                               \
  RENGA_CUDA_LINEAR_NAMES(X, BF16)                                                              \
  X(Attention_F16_2)                                                                            \
  X(Attention_F16_4)                                                                            \
  X(Attention_F16_8)                                                                            \
  X(Attention_F32_2)                                                                            \
  X(Attention_F32_4)                                                                            \
  X(Attention_F32_8)                                                                            \
  X(Attention_Q8_2)                                                                             \
  X(Attention_Q8_4) X(Attention_Q8_8) X(JoinSpans) X(Quantize) X(Pad) X(RmsNorm) X(HeadRmsNorm) \
      X(SiluGate) X(GeluGate) X(Add) X(SumParts) X(RopeTable) X(Rope) X(StoreKv) X(TopK) X(Tensor_Q8_0)     \
          X(Tensor_Q4_0) X(Tensor_Q4_1) X(Tensor_Q5_0) X(Tensor_Q5_1) X(Tensor_Q2_K)            \
              X(Tensor_Q3_K) X(Tensor_Q4_K) X(Tensor_Q5_K) X(Tensor_Q6_K) X(Tensor_IQ4_NL)      \
                  X(Tensor_IQ4_XS) X(HalfTiles_F16) X(PeakDp4a) X(PeakMma)

enum class Kernel : int32_t {
#define RENGA_KERNEL_NAME(name) k##name,
  RENGA_CUDA_KERNELS(RENGA_KERNEL_NAME)
#undef RENGA_KERNEL_NAME
      kCount
};
inline constexpr int kKernelCount = static_cast<int>(Kernel::kCount);

// In the device code.
inline constexpr const char* kKernelNames[] = {
#define RENGA_KERNEL_NAME(name) "renga_" #name,
    RENGA_CUDA_KERNELS(RENGA_KERNEL_NAME)
#undef RENGA_KERNEL_NAME
};

}  // namespace renga::kernels::cuda

#endif  // RENGA_WORKER_KERNELS_CUDA_KERNEL_LIST_H_

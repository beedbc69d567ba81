// Every kernel of kernel_list.h by name. Included once by kernels.cu and once by the emulation,
// each of which says what a kernel is: RENGA_KERNEL(name, struct, body).
#include "worker/kernels/cuda/device/attention.h"
#include "worker/kernels/cuda/device/half_tiles.h"
#include "worker/kernels/cuda/device/linear.h"
#include "worker/kernels/cuda/device/peak.h"
#include "worker/kernels/cuda/device/rows.h"
#include "worker/kernels/cuda/device/tensor_tiles.h"
#include "worker/kernels/cuda/device/top_k.h"

namespace renga::kernels::cuda {

#define RENGA_QUANTIZED(Format)                                                              \
  RENGA_KERNEL(VectorOne_##Format, LinearArgs, kVectorThreads, (MultiplyVectors<Format, 1>)) \
  RENGA_KERNEL(VectorFew_##Format, LinearArgs, kVectorThreads,                               \
               (MultiplyVectors<Format, kFewTokens>))                                        \
  RENGA_KERNEL(Tiles_##Format, LinearArgs, kTileThreads, (MultiplyTiles<Format>))            \
  RENGA_KERNEL(Tensor_##Format, LinearArgs, kTileThreads, (MultiplyTensorTiles<Format>))
RENGA_CUDA_QUANTIZED_FORMATS(RENGA_QUANTIZED)
#undef RENGA_QUANTIZED

#define RENGA_PLAIN(Format)                                                                       \
  RENGA_KERNEL(VectorOne_##Format, LinearArgs, kVectorThreads, (MultiplyPlainVectors<Format, 1>)) \
  RENGA_KERNEL(VectorFew_##Format, LinearArgs, kVectorThreads,                                    \
               (MultiplyPlainVectors<Format, kFewTokens>))                                        \
  RENGA_KERNEL(Tiles_##Format, LinearArgs, kTileThreads, (MultiplyPlainTiles<Format>))
RENGA_CUDA_PLAIN_FORMATS(RENGA_PLAIN)
#undef RENGA_PLAIN
RENGA_KERNEL(HalfTiles_F16, LinearArgs, kTileThreads, (MultiplyHalfTiles))

#define RENGA_ATTENTION(Kv, numbers)                                         \
  RENGA_KERNEL(Attention_##Kv##_##numbers, AttentionArgs, kAttentionThreads, \
               (Attend<Kv##Cells, numbers>))
RENGA_CUDA_ATTENTION_SHAPES(RENGA_ATTENTION)
#undef RENGA_ATTENTION
RENGA_KERNEL(JoinSpans, AttentionArgs, kAttentionThreads, (JoinAllSpans))

RENGA_KERNEL(Quantize, QuantizeArgs, kRowThreads, (QuantizeRows))
RENGA_KERNEL(Pad, PadArgs, kRowThreads, (PadRows))
RENGA_KERNEL(RmsNorm, NormArgs, kRowThreads, (NormalizeRows))
RENGA_KERNEL(HeadRmsNorm, NormArgs, kRowThreads, (NormalizeHeads))
RENGA_KERNEL(SiluGate, RowsArgs, kRowThreads, (GateRows<Silu>))
RENGA_KERNEL(GeluGate, RowsArgs, kRowThreads, (GateRows<Gelu>))
RENGA_KERNEL(Add, RowsArgs, kRowThreads, (AddRows))
RENGA_KERNEL(SumParts, SumPartsArgs, kRowThreads, (AddParts))
RENGA_KERNEL(RopeTable, RopeTableArgs, kRowThreads, (MakeRopeTable))
RENGA_KERNEL(Rope, RopeArgs, kRowThreads, (RotateRows))
RENGA_KERNEL(StoreKv, StoreKvArgs, kRowThreads, (StoreCells))
RENGA_KERNEL(TopK, TopKArgs, kTopThreads, (FindTopOfChunk))
RENGA_KERNEL(PeakDp4a, PeakArgs, kPeakThreads, (RunPeakDp4a))
RENGA_KERNEL(PeakMma, PeakArgs, kPeakThreads, (RunPeakMma))

}  // namespace renga::kernels::cuda

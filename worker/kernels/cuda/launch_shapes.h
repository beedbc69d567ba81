// How the kernels cut their work: what the host needs to know to launch them.
#ifndef RENGA_WORKER_KERNELS_CUDA_LAUNCH_SHAPES_H_
#define RENGA_WORKER_KERNELS_CUDA_LAUNCH_SHAPES_H_

namespace renga::kernels::cuda {

// Vector kernels: threads of a block, rows of a warp, most tokens.
inline constexpr int kVectorThreads = 128;
inline constexpr int kWarpRows = 4;
inline constexpr int kFewTokens = 8;
inline constexpr int kVectorRows = kVectorThreads / 32 * kWarpRows;

// Tiles: threads of a block; grid x counts tiles of tokens, so that blocks that share weights run
// side by side, y those of rows.
inline constexpr int kTileThreads = 256;
inline constexpr int kTileRows = 32;
inline constexpr int kTileTokens = 32;
inline constexpr int kTensorTokens = 64;  // of a tile of tensor cores

// Peak kernels: threads of a block, and operations of a thread in a round.
inline constexpr int kPeakThreads = 256;
inline constexpr int kPeakDp4aOperations = 8 * 8;                // 8 of 4 products and 4 sums
inline constexpr int kPeakMmaOperations = 8 * 16 * 8 * 32 / 16;  // 8 of 16 x 8 x 32, over 32 lanes

// Kernels on rows: threads of a block; blocks count warps' worth of work or whole rows.
inline constexpr int kRowThreads = 256;

// Attention: threads of a block, and positions of a span, a multiple of 32.
inline constexpr int kAttentionThreads = 128;
inline constexpr int kSpan = 128;
inline constexpr int kMostHeadDim = 256;
// Queries of a tile, by numbers of a head that a lane holds.
template <int kNumbers>
inline constexpr int kQueriesOf = kNumbers > 4 ? 4 : 8;

// TopK: threads of a block, and the most columns it finds.
inline constexpr int kTopThreads = 256;
inline constexpr int kMostTop = 64;

}  // namespace renga::kernels::cuda

#endif  // RENGA_WORKER_KERNELS_CUDA_LAUNCH_SHAPES_H_

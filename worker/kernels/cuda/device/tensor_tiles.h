// Products of a quantised matrix with many tokens, on tensor cores: int8 mma instead of DP4A.
//
// A block takes 32 rows and 64 tokens, each of its 8 warps one chain, as in Tiles. The instruction
// gives the whole-number sums of a group, or of each half of it where the halves have scales of
// their own; they go to the chains by the formats' own Accumulate. So the order of summation is
// that of linear.h, and so are the bits.
//
// Weights are the instruction's A (16 rows), tokens its B (8 columns): in shared memory a row's, or
// a token's, 8 words lie 12 apart, which keeps the 32 words that a warp reads at once in banks of
// their own.
#ifndef RENGA_WORKER_KERNELS_CUDA_DEVICE_TENSOR_TILES_H_
#define RENGA_WORKER_KERNELS_CUDA_DEVICE_TENSOR_TILES_H_

#include <cstdint>

#include "worker/kernels/cuda/device/formats.h"
#include "worker/kernels/cuda/device/linear.h"
#include "worker/kernels/cuda/device/words.h"
#include "worker/kernels/cuda/kernel_list.h"
#include "worker/kernels/cuda/launch_shapes.h"

namespace renga::kernels::cuda {

#if RENGA_TENSOR_CORES

constexpr int kMmaRows = 16;
constexpr int kMmaTokens = 8;
constexpr int kMmaSums =
    4;  // of a lane: rows lane / 4 and 8 below, tokens 2 (lane % 4) and the next
constexpr int kRowParts = kTile / kMmaRows;
constexpr int kTokenParts = kTensorTokens / kMmaTokens;
constexpr int kTensorWarpWords = (kTile + kTensorTokens) * kTileStride + kTileScalars;
static_assert(kTensorWarpWords >= kTile * kTile, "the chains' sums take the same memory");

// A lane's sums of the tile.
using TensorChains = float[kTokenParts][kRowParts][kMmaSums];

// The scales of the four rows that a lane has sums of, and those rows' codes as the instruction
// takes them.
struct TensorRows {
  int32_t codes[kRowParts][4];
  WeightGroup scales[kRowParts][2];  // without codes
};

RENGA_DEVICE Tile TensorTileOf(int32_t* shared) {
  int32_t* const mine = shared + WarpIndex() * kTensorWarpWords;
  return {BlockY() * kTile, BlockX() * kTensorTokens, mine, mine + kTile * kTileStride,
          mine + (kTile + kTensorTokens) * kTileStride};
}

RENGA_DEVICE TensorRows LoadTensorRows(const Tile& tile) {
  TensorRows rows;
  RENGA_UNROLL
  for (int m = 0; m < kRowParts; ++m) {
    RENGA_UNROLL
    for (int half = 0; half < 2; ++half) {
      const int row = m * kMmaRows + half * 8 + Lane() / 4;
      const int32_t* const codes = tile.weights + row * kTileStride + Lane() % 4;
      rows.codes[m][half] = codes[0];
      rows.codes[m][half + 2] = codes[4];
      const Words4 scalars = SharedWords4(tile.scalars + row * 4);
      rows.scales[m][half].scale = BitsToFloat(static_cast<uint32_t>(scalars.word[0]));
      rows.scales[m][half].minimum = BitsToFloat(static_cast<uint32_t>(scalars.word[1]));
      rows.scales[m][half].factors = scalars.word[2];
    }
  }
  return rows;
}

// The sums of a group's first and last 16 products; all in the first where nothing tells them
// apart.
template <class Format>
RENGA_DEVICE void MultiplyCodes(const int32_t (&rows)[4], const int32_t (&tokens)[2],
                                int32_t (&first)[kMmaSums], int32_t (&last)[kMmaSums]) {
  if (Format::kHasFactors) {
    MmaBytes16(rows[0], rows[1], tokens[0], first);
    MmaBytes16(rows[2], rows[3], tokens[1], last);
  } else {
    MmaBytes32(rows, tokens, first);
  }
}

template <class Format>
RENGA_DEVICE void MultiplyTensorGroup(const Tile& tile, int64_t live_tokens, TensorChains& chains) {
  const TensorRows rows = LoadTensorRows(tile);
  RENGA_UNROLL
  for (int n = 0; n < kTokenParts; ++n) {
    if (n * kMmaTokens >= live_tokens) continue;  // alike for all lanes
    const int32_t* const column =
        tile.tokens + (n * kMmaTokens + Lane() / 4) * kTileStride + Lane() % 4;
    const int32_t codes[2] = {column[0], column[4]};
    Words4 scalars[2];  // of the tokens that this lane has sums of
    RENGA_UNROLL
    for (int t = 0; t < 2; ++t) {
      scalars[t] =
          SharedWords4(tile.tokens + (n * kMmaTokens + Lane() % 4 * 2 + t) * kTileStride + 8);
    }
    RENGA_UNROLL
    for (int m = 0; m < kRowParts; ++m) {
      int32_t first[kMmaSums] = {0, 0, 0, 0};
      int32_t last[kMmaSums] = {0, 0, 0, 0};
      MultiplyCodes<Format>(rows.codes[m], codes, first, last);
      RENGA_UNROLL
      for (int i = 0; i < kMmaSums; ++i) {
        const Words4& token = scalars[i % 2];
        const GroupSums sums = {{first[i], last[i]}, {token.word[1], token.word[2]}};
        chains[n][m][i] = Format::Accumulate(rows.scales[m][i / 2],
                                             BitsToFloat(static_cast<uint32_t>(token.word[0])),
                                             sums, chains[n][m][i]);
      }
    }
  }
}

// Joins the warps' sums of the tile, 32 tokens at a time, and writes those inside the matrix.
RENGA_DEVICE void StoreTensorTile(const LinearArgs& args, const Tile& tile, int32_t* shared,
                                  const TensorChains& chains) {
  float* const sums = reinterpret_cast<float*>(shared);
  RENGA_UNROLL
  for (int part = 0; part < kTensorTokens / kTile; ++part) {
    if (tile.first_token + part * kTile >= args.tokens) continue;  // alike for the whole block
    SyncBlock();  // what lies in that memory has been read
    RENGA_UNROLL
    for (int n = 0; n < kTile / kMmaTokens; ++n) {
      RENGA_UNROLL
      for (int m = 0; m < kRowParts; ++m) {
        RENGA_UNROLL
        for (int i = 0; i < kMmaSums; ++i) {
          const int token = n * kMmaTokens + Lane() % 4 * 2 + i % 2;
          const int row = m * kMmaRows + i / 2 * 8 + Lane() / 4;
          sums[WarpIndex() * kTile * kTile + token * kTile + row] =
              chains[part * (kTile / kMmaTokens) + n][m][i];
        }
      }
    }
    SyncBlock();
    JoinTile(args, tile.first_row, tile.first_token + part * kTile, sums);
  }
}

template <class Format>
RENGA_DEVICE void MultiplyTensorTiles(const LinearArgs& args) {
  RENGA_SHARED(int32_t, shared, kChains * kTensorWarpWords);
  const Tile tile = TensorTileOf(shared);
  TensorChains chains = {};
  for (int64_t group = WarpIndex(); group < args.matrix.groups; group += kChains) {
    StageWeights<Format>(args, tile, group);
    RENGA_UNROLL
    for (int first = 0; first < kTensorTokens; first += kWarp) {
      StageToken(args, tile, group, first + Lane());
    }
    SyncWarp();
    MultiplyTensorGroup<Format>(tile, args.tokens - tile.first_token, chains);
    SyncWarp();  // before the next group takes the place
  }
  StoreTensorTile(args, tile, shared, chains);
}

#else

// Of code for cards without tensor cores, or with older ones: never launched.
template <class Format>
RENGA_DEVICE void MultiplyTensorTiles(const LinearArgs&) {}

#endif  // RENGA_TENSOR_CORES

}  // namespace renga::kernels::cuda

#endif  // RENGA_WORKER_KERNELS_CUDA_DEVICE_TENSOR_TILES_H_

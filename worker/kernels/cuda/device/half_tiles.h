// Products of an F16 matrix with any number of tokens, on tensor cores.
//
// What the instruction adds up, and how it rounds, is the card's own: so all numbers of tokens take
// this way where any does, and it is a path of its own (cuda-half). Weights are as they are.
// Activations become two halves: of 16 numbers of a token, divided by a power of two that leaves
// the largest below 2, the nearest halves, and what they leave out times 2048. That keeps 22 bits,
// and whatever the activations are, no half overflows.
//
// A block takes 32 rows and 32 tokens, each of its 8 warps one chain of groups, as in linear.h; a
// chain adds up the instruction's sums of 16 products each, in order.
#ifndef RENGA_WORKER_KERNELS_CUDA_DEVICE_HALF_TILES_H_
#define RENGA_WORKER_KERNELS_CUDA_DEVICE_HALF_TILES_H_

#include <cstdint>

#include "worker/kernels/cuda/device/formats.h"
#include "worker/kernels/cuda/device/linear.h"
#include "worker/kernels/cuda/device/tensor_tiles.h"
#include "worker/kernels/cuda/device/words.h"
#include "worker/kernels/cuda/kernel_list.h"
#include "worker/kernels/cuda/launch_shapes.h"

namespace renga::kernels::cuda {

#if RENGA_TENSOR_CORES

constexpr int kDepth = 16;  // numbers of a row, and of a token, at a time: 8 words
constexpr float kLowUnit = 2048;
constexpr int kHalfWarpWords = 3 * kTile * kTileStride;
static_assert(kHalfWarpWords >= kTile * kTile, "the chains' sums take the same memory");

// A warp's part of the shared memory; words of rows and tokens lie as in Tile.
struct HalfTile {
  int64_t first_row;
  int64_t first_token;
  int32_t* weights;
  int32_t* high;  // of a token: 8 words, then its scale
  int32_t* low;
};

constexpr int kHalfTokenParts = kTile / kMmaTokens;
using HalfChains = float[kHalfTokenParts][kRowParts][kMmaSums];

RENGA_DEVICE HalfTile HalfTileOf(int32_t* shared) {
  int32_t* const mine = shared + WarpIndex() * kHalfWarpWords;
  return {BlockY() * kTile, BlockX() * kTile, mine, mine + kTile * kTileStride,
          mine + 2 * kTile * kTileStride};
}

RENGA_DEVICE int32_t PackHalves(uint16_t first, uint16_t second) {
  return static_cast<int32_t>(first | static_cast<uint32_t>(second) << 16);
}

// Each lane brings 16 numbers of one row.
RENGA_DEVICE void StageHalfWeights(const LinearArgs& args, const HalfTile& tile, int64_t group,
                                   int first) {
  const int64_t row = Within(tile.first_row + Lane(), args.matrix.rows);
  int32_t* const to = tile.weights + Lane() * kTileStride;
  RENGA_UNROLL
  for (int part = 0; part < 2; ++part) {
    const Words4 words = LoadWords4(PartAt<F16::kParts>(args.matrix, row, group, first / 8 + part));
    StoreWords4(to + 4 * part, words.word[0], words.word[1], words.word[2], words.word[3]);
  }
}

// The power of two that a largest magnitude is divided by, and its inverse; powers whose inverse is
// no usual float are not used.
struct PowerOfTwo {
  float value;
  float inverse;
};
RENGA_DEVICE PowerOfTwo PowerBelow(float magnitude) {
  constexpr uint32_t kOne = 1u << 23;  // an exponent's last bit
  uint32_t bits = FloatToBits(magnitude) & 0x7f800000u;
  if (bits < kOne) bits = kOne;
  if (bits > 253 * kOne) bits = 253 * kOne;
  return {BitsToFloat(bits), BitsToFloat(254 * kOne - bits)};
}

// Each lane brings 16 numbers of one token.
RENGA_DEVICE void StageHalfToken(const LinearArgs& args, const HalfTile& tile, int64_t group,
                                 int first) {
  const int64_t token = Within(tile.first_token + Lane(), args.tokens);
  const float* const in = args.floats + token * args.floats_stride + group * kGroup + first;
  float x[kDepth];
  float largest = 0;
  RENGA_UNROLL
  for (int i = 0; i < kDepth; i += 4) {
    const Words4 words = LoadWords4(in + i);
    RENGA_UNROLL
    for (int k = 0; k < 4; ++k) {
      x[i + k] = BitsToFloat(static_cast<uint32_t>(words.word[k]));
      largest = Max(largest, fabsf(x[i + k]));
    }
  }
  const PowerOfTwo scale = PowerBelow(largest);
  int32_t* const high = tile.high + Lane() * kTileStride;
  int32_t* const low = tile.low + Lane() * kTileStride;
  RENGA_UNROLL
  for (int i = 0; i < kDepth; i += 2) {
    uint16_t highs[2];
    uint16_t lows[2];
    RENGA_UNROLL
    for (int k = 0; k < 2; ++k) {
      const float scaled = Multiply(x[i + k], scale.inverse);
      highs[k] = FloatToHalf(scaled);
      lows[k] = FloatToHalf(Multiply(Sum(scaled, -HalfToFloat(highs[k])), kLowUnit));
    }
    high[i / 2] = PackHalves(highs[0], highs[1]);
    low[i / 2] = PackHalves(lows[0], lows[1]);
  }
  high[kTileWords] = static_cast<int32_t>(FloatToBits(scale.value));
}

// The instruction's sums of 16 products, to the chains.
RENGA_DEVICE void MultiplyHalves(const HalfTile& tile, int64_t live_tokens, HalfChains& chains) {
  int32_t rows[kRowParts][4];
  RENGA_UNROLL
  for (int m = 0; m < kRowParts; ++m) {
    RENGA_UNROLL
    for (int half = 0; half < 2; ++half) {
      const int row = m * kMmaRows + half * 8 + Lane() / 4;
      rows[m][half] = tile.weights[row * kTileStride + Lane() % 4];
      rows[m][half + 2] = tile.weights[row * kTileStride + Lane() % 4 + 4];
    }
  }
  RENGA_UNROLL
  for (int n = 0; n < kHalfTokenParts; ++n) {
    if (n * kMmaTokens >= live_tokens) continue;  // alike for all lanes
    const int column = (n * kMmaTokens + Lane() / 4) * kTileStride + Lane() % 4;
    const int32_t high[2] = {tile.high[column], tile.high[column + 4]};
    const int32_t low[2] = {tile.low[column], tile.low[column + 4]};
    RENGA_UNROLL
    for (int m = 0; m < kRowParts; ++m) {
      float high_sums[kMmaSums] = {0, 0, 0, 0};
      float low_sums[kMmaSums] = {0, 0, 0, 0};
      MmaHalves(rows[m], high, high_sums);
      MmaHalves(rows[m], low, low_sums);
      RENGA_UNROLL
      for (int i = 0; i < kMmaSums; ++i) {
        const int token = n * kMmaTokens + Lane() % 4 * 2 + i % 2;
        const float scale =
            BitsToFloat(static_cast<uint32_t>(tile.high[token * kTileStride + kTileWords]));
        const float sum = Fma(low_sums[i], 1.0f / kLowUnit, high_sums[i]);
        chains[n][m][i] = Fma(scale, sum, chains[n][m][i]);
      }
    }
  }
}

RENGA_DEVICE void StoreHalfTile(const LinearArgs& args, const HalfTile& tile, int32_t* shared,
                                const HalfChains& chains) {
  float* const sums = reinterpret_cast<float*>(shared);
  SyncBlock();  // the tiles in that memory have been read
  RENGA_UNROLL
  for (int n = 0; n < kHalfTokenParts; ++n) {
    RENGA_UNROLL
    for (int m = 0; m < kRowParts; ++m) {
      RENGA_UNROLL
      for (int i = 0; i < kMmaSums; ++i) {
        const int token = n * kMmaTokens + Lane() % 4 * 2 + i % 2;
        const int row = m * kMmaRows + i / 2 * 8 + Lane() / 4;
        sums[WarpIndex() * kTile * kTile + token * kTile + row] = chains[n][m][i];
      }
    }
  }
  SyncBlock();
  JoinTile(args, tile.first_row, tile.first_token, sums);
}

RENGA_DEVICE void MultiplyHalfTiles(const LinearArgs& args) {
  RENGA_SHARED(int32_t, shared, kChains * kHalfWarpWords);
  const HalfTile tile = HalfTileOf(shared);
  HalfChains chains = {};
  for (int64_t group = WarpIndex(); group < args.matrix.groups; group += kChains) {
    for (int first = 0; first < kGroup; first += kDepth) {
      StageHalfWeights(args, tile, group, first);
      StageHalfToken(args, tile, group, first);
      SyncWarp();
      MultiplyHalves(tile, args.tokens - tile.first_token, chains);
      SyncWarp();  // before the next numbers take the place
    }
  }
  StoreHalfTile(args, tile, shared, chains);
}

#else

// Of code for cards without tensor cores: never launched.
RENGA_DEVICE void MultiplyHalfTiles(const LinearArgs&) {}

#endif  // RENGA_TENSOR_CORES

}  // namespace renga::kernels::cuda

#endif  // RENGA_WORKER_KERNELS_CUDA_DEVICE_HALF_TILES_H_

// Products of a matrix with rows of activations.
//
// Order of summation, of every kernel here: group g of a row belongs to chain g % 8; a chain adds
// its groups up in order; the chains c are added as ((0+1)+(2+3))+((4+5)+(6+7)), then the bias. So
// a result's bits do not depend on which kernel made it, nor on what stands beside it.
//   Vector*: a warp takes 4 rows, each lane one chain of one row, and up to 8 tokens.
//   Tiles:   a block takes 32 rows and 32 tokens, each of its 8 warps one chain.
//   Tensor:  the same by tensor cores, with 64 tokens: tensor_tiles.h.
#ifndef RENGA_WORKER_KERNELS_CUDA_DEVICE_LINEAR_H_
#define RENGA_WORKER_KERNELS_CUDA_DEVICE_LINEAR_H_

#include <cstdint>

#include "worker/kernels/cuda/device/formats.h"
#include "worker/kernels/cuda/device/words.h"
#include "worker/kernels/cuda/kernel_list.h"
#include "worker/kernels/cuda/launch_shapes.h"

namespace renga::kernels::cuda {

// ---- Matrix times a few vectors -----------------------------------------------------------------

// The chains of 8 neighbouring lanes, added up; every lane has the sum.
RENGA_DEVICE float JoinChains(float chain) { return Reduce<kChains>(chain, JoinSum()); }

RENGA_DEVICE ActivationGroup LoadGroup(const ActivationGroup* at) {
  const Words2 words = LoadWords2(at);
  return {BitsToFloat(static_cast<uint32_t>(words.word[0])),
          {static_cast<int16_t>(words.word[1]),
           static_cast<int16_t>(static_cast<uint32_t>(words.word[1]) >> 16)}};
}

// One group of weights times the same group of one token.
template <class Format>
RENGA_DEVICE float AddGroup(const LinearArgs& args, const WeightGroup& w, int64_t token,
                            int64_t group, float chain) {
  const int64_t at = token * args.matrix.groups + group;
  const ActivationGroup scales = LoadGroup(args.scales + at);
  GroupSums sums = {{0, 0}, {scales.sums[0], scales.sums[1]}};
  RENGA_UNROLL
  for (int half = 0; half < 2; ++half) {
    const Words4 codes = LoadWords4(args.codes + at * kGroup + half * 16);
    RENGA_UNROLL
    for (int i = 0; i < 4; ++i) {
      sums.products[half] = Dp4a(w.codes[half * 4 + i], codes.word[i], sums.products[half]);
    }
  }
  return Format::Accumulate(w, scales.scale, sums, chain);
}

// Writes what the 8 lanes of a row have added up: lane `chain` writes token `chain`.
template <int kTokens>
RENGA_DEVICE void StoreRow(const LinearArgs& args, const float* chains, int64_t row) {
  const int chain = Lane() % kChains;
  float mine = 0;
  RENGA_UNROLL
  for (int t = 0; t < kTokens; ++t) {
    const float sum = JoinChains(chains[t]);
    if (chain == t) mine = sum;
  }
  if (row >= args.matrix.rows || chain >= args.tokens || chain >= kTokens) return;
  if (args.bias != nullptr) mine = Sum(mine, LoadOnce(args.bias + row));
  args.out[chain * args.out_stride + row] = mine;
}

RENGA_DEVICE int64_t VectorRow() {
  return (BlockX() * (kVectorThreads / kWarp) + WarpIndex()) * kWarpRows + Lane() / kChains;
}

template <class Format, int kTokens>
RENGA_DEVICE void MultiplyVectors(const LinearArgs& args) {
  const int64_t row = VectorRow();
  float chains[kTokens];
  RENGA_UNROLL
  for (int t = 0; t < kTokens; ++t) chains[t] = 0;
  if (row < args.matrix.rows) {
    for (int64_t group = Lane() % kChains; group < args.matrix.groups; group += kChains) {
      WeightGroup w;
      Format::Load(args.matrix, row, group, w);
      RENGA_UNROLL
      for (int t = 0; t < kTokens; ++t) {
        if (t < args.tokens) chains[t] = AddGroup<Format>(args, w, t, group, chains[t]);
      }
    }
  }
  StoreRow<kTokens>(args, chains, row);
}

template <class Format, int kTokens>
RENGA_DEVICE void MultiplyPlainVectors(const LinearArgs& args) {
  constexpr int kNumbers = kGroup / Format::kParts;
  const int64_t row = VectorRow();
  float chains[kTokens];
  RENGA_UNROLL
  for (int t = 0; t < kTokens; ++t) chains[t] = 0;
  if (row < args.matrix.rows) {
    for (int64_t group = Lane() % kChains; group < args.matrix.groups; group += kChains) {
      for (int part = 0; part < Format::kParts; ++part) {
        float w[kNumbers];
        Format::Load(args.matrix, row, group, part, w);
        RENGA_UNROLL
        for (int t = 0; t < kTokens; ++t) {
          if (t >= args.tokens) continue;
          const float* in = args.floats + t * args.floats_stride + group * kGroup + part * kNumbers;
          RENGA_UNROLL
          for (int i = 0; i < kNumbers; i += 4) {
            const Words4 x = LoadWords4(in + i);
            RENGA_UNROLL
            for (int k = 0; k < 4; ++k) {
              const float number = BitsToFloat(static_cast<uint32_t>(x.word[k]));
              chains[t] = Fma(w[i + k], number, chains[t]);
            }
          }
        }
      }
    }
  }
  StoreRow<kTokens>(args, chains, row);
}

// ---- Matrix times a tile of tokens --------------------------------------------------------------

constexpr int kTile = 32;                        // rows, and tokens
constexpr int kLaneRows = 4;                     // of a lane's sums: rows lane % 8 + 8 i
constexpr int kLaneTokens = 8;                   // and tokens lane / 8 + 4 j
constexpr int kTokenStep = kTile / kLaneTokens;  // 4
constexpr int kRowStep = kTile / kLaneRows;      // 8
constexpr int kTileStride = 12;                  // words: 8, and 4 that keep banks apart
constexpr int kTileWords = 8;                    // of a row, or a token, at a time
constexpr int kTileScalars = kTile * 4;          // words
constexpr int kWarpWords = 2 * kTile * kTileStride + kTileScalars;
static_assert(kWarpWords <= kTile * kTile, "the chains' sums take the same memory");

// The tile that a block works on, and a warp's part of the shared memory.
struct Tile {
  int64_t first_row;
  int64_t first_token;
  int32_t* weights;  // [row][kTileStride]
  int32_t* tokens;   // [token][kTileStride]
  int32_t* scalars;  // [row][4]: scale, minimum, factors
};

RENGA_DEVICE Tile TileOf(int32_t* shared) {
  int32_t* const mine = shared + WarpIndex() * kTile * kTile;
  return {BlockY() * kTile, BlockX() * kTile, mine, mine + kTile * kTileStride,
          mine + 2 * kTile * kTileStride};
}

RENGA_DEVICE int64_t Within(int64_t index, int64_t count) {
  return index < count ? index : count - 1;
}

RENGA_DEVICE void StoreWords4(int32_t* at, int32_t a, int32_t b, int32_t c, int32_t d) {
  *reinterpret_cast<Words4*>(at) = {{a, b, c, d}};
}
RENGA_DEVICE Words4 SharedWords4(const int32_t* at) { return *reinterpret_cast<const Words4*>(at); }

// Adds up the 8 warps' sums of 32 x 32, each [token][row], and writes those inside the matrix.
RENGA_DEVICE void JoinTile(const LinearArgs& args, int64_t first_row, int64_t first_token,
                           const float* sums) {
  for (int at = ThreadIndex(); at < kTile * kTile; at += kTileThreads) {
    const int64_t token = first_token + at / kTile;
    const int64_t row = first_row + at % kTile;
    if (token >= args.tokens || row >= args.matrix.rows) continue;
    float c[kChains];
    RENGA_UNROLL
    for (int k = 0; k < kChains; ++k) c[k] = sums[k * kTile * kTile + at];
    float sum = Sum(Sum(Sum(c[0], c[1]), Sum(c[2], c[3])), Sum(Sum(c[4], c[5]), Sum(c[6], c[7])));
    if (args.bias != nullptr) sum = Sum(sum, LoadOnce(args.bias + row));
    args.out[token * args.out_stride + row] = sum;
  }
}

// Joins the warps' sums of the tile.
RENGA_DEVICE void StoreTile(const LinearArgs& args, const Tile& tile, int32_t* shared,
                            const float (&chains)[kLaneTokens][kLaneRows]) {
  float* const sums = reinterpret_cast<float*>(shared);
  SyncBlock();  // the tiles in that memory have been read
  RENGA_UNROLL
  for (int j = 0; j < kLaneTokens; ++j) {
    RENGA_UNROLL
    for (int i = 0; i < kLaneRows; ++i) {
      const int token = Lane() / kRowStep + kTokenStep * j;
      const int row = Lane() % kRowStep + kRowStep * i;
      sums[WarpIndex() * kTile * kTile + token * kTile + row] = chains[j][i];
    }
  }
  SyncBlock();
  JoinTile(args, tile.first_row, tile.first_token, sums);
}

// Brings one group of the tile's rows, each lane one of them.
template <class Format>
RENGA_DEVICE void StageWeights(const LinearArgs& args, const Tile& tile, int64_t group) {
  const int lane = Lane();
  WeightGroup w;
  w.minimum = 0;
  w.factors = 0;
  Format::Load(args.matrix, Within(tile.first_row + lane, args.matrix.rows), group, w);
  int32_t* const row = tile.weights + lane * kTileStride;
  StoreWords4(row, w.codes[0], w.codes[1], w.codes[2], w.codes[3]);
  StoreWords4(row + 4, w.codes[4], w.codes[5], w.codes[6], w.codes[7]);
  StoreWords4(tile.scalars + lane * 4, static_cast<int32_t>(FloatToBits(w.scale)),
              static_cast<int32_t>(FloatToBits(w.minimum)), w.factors, 0);
}

// Brings one group of the tile's `index`-th token: its codes, then its scale and sums.
RENGA_DEVICE void StageToken(const LinearArgs& args, const Tile& tile, int64_t group, int index) {
  const int64_t at = Within(tile.first_token + index, args.tokens) * args.matrix.groups + group;
  int32_t* const token = tile.tokens + index * kTileStride;
  const Words4 low = LoadWords4(args.codes + at * kGroup);
  const Words4 high = LoadWords4(args.codes + at * kGroup + 16);
  const ActivationGroup scales = LoadGroup(args.scales + at);
  StoreWords4(token, low.word[0], low.word[1], low.word[2], low.word[3]);
  StoreWords4(token + 4, high.word[0], high.word[1], high.word[2], high.word[3]);
  StoreWords4(token + 8, static_cast<int32_t>(FloatToBits(scales.scale)), scales.sums[0],
              scales.sums[1], 0);
}

template <class Format>
RENGA_DEVICE void MultiplyGroup(const Tile& tile, float (&chains)[kLaneTokens][kLaneRows]) {
  WeightGroup w[kLaneRows];
  RENGA_UNROLL
  for (int i = 0; i < kLaneRows; ++i) {
    const int row = Lane() % kRowStep + kRowStep * i;
    const Words4 low = SharedWords4(tile.weights + row * kTileStride);
    const Words4 high = SharedWords4(tile.weights + row * kTileStride + 4);
    const Words4 scalars = SharedWords4(tile.scalars + row * 4);
    RENGA_UNROLL
    for (int k = 0; k < 4; ++k) {
      w[i].codes[k] = low.word[k];
      w[i].codes[k + 4] = high.word[k];
    }
    w[i].scale = BitsToFloat(static_cast<uint32_t>(scalars.word[0]));
    w[i].minimum = BitsToFloat(static_cast<uint32_t>(scalars.word[1]));
    w[i].factors = scalars.word[2];
  }
  RENGA_UNROLL
  for (int j = 0; j < kLaneTokens; ++j) {
    const int32_t* const token = tile.tokens + (Lane() / kRowStep + kTokenStep * j) * kTileStride;
    const Words4 low = SharedWords4(token);
    const Words4 high = SharedWords4(token + 4);
    const Words4 scalars = SharedWords4(token + 8);
    const float scale = BitsToFloat(static_cast<uint32_t>(scalars.word[0]));
    RENGA_UNROLL
    for (int i = 0; i < kLaneRows; ++i) {
      GroupSums sums = {{0, 0}, {scalars.word[1], scalars.word[2]}};
      RENGA_UNROLL
      for (int k = 0; k < 4; ++k) {
        sums.products[0] = Dp4a(w[i].codes[k], low.word[k], sums.products[0]);
        sums.products[1] = Dp4a(w[i].codes[k + 4], high.word[k], sums.products[1]);
      }
      chains[j][i] = Format::Accumulate(w[i], scale, sums, chains[j][i]);
    }
  }
}

template <class Format>
RENGA_DEVICE void MultiplyTiles(const LinearArgs& args) {
  RENGA_SHARED(int32_t, shared, kChains * kTile * kTile);
  const Tile tile = TileOf(shared);
  float chains[kLaneTokens][kLaneRows] = {};
  for (int64_t group = WarpIndex(); group < args.matrix.groups; group += kChains) {
    StageWeights<Format>(args, tile, group);
    StageToken(args, tile, group, Lane());
    SyncWarp();
    MultiplyGroup<Format>(tile, chains);
    SyncWarp();  // before the next group takes the place
  }
  StoreTile(args, tile, shared, chains);
}

// Brings 8 numbers of the tile's rows and tokens.
template <class Format>
RENGA_DEVICE void StagePlain(const LinearArgs& args, const Tile& tile, int64_t group, int first) {
  constexpr int kNumbers = kGroup / Format::kParts;
  const int lane = Lane();
  const int64_t row = Within(tile.first_row + lane, args.matrix.rows);
  float w[kTileWords];
  RENGA_UNROLL
  for (int i = 0; i < kTileWords; i += kNumbers) {
    Format::Load(args.matrix, row, group, (first + i) / kNumbers, w + i);
  }
  int32_t* const weights = tile.weights + lane * kTileStride;
  RENGA_UNROLL
  for (int i = 0; i < kTileWords; ++i) weights[i] = static_cast<int32_t>(FloatToBits(w[i]));
  const int64_t token = Within(tile.first_token + lane, args.tokens);
  const float* const in = args.floats + token * args.floats_stride + group * kGroup + first;
  RENGA_UNROLL
  for (int i = 0; i < kTileWords; i += 4) {
    const Words4 x = LoadWords4(in + i);
    StoreWords4(tile.tokens + lane * kTileStride + i, x.word[0], x.word[1], x.word[2], x.word[3]);
  }
}

RENGA_DEVICE void MultiplyPlain(const Tile& tile, float (&chains)[kLaneTokens][kLaneRows]) {
  RENGA_UNROLL
  for (int k = 0; k < kTileWords; k += 4) {
    Words4 w[kLaneRows];
    RENGA_UNROLL
    for (int i = 0; i < kLaneRows; ++i) {
      w[i] = SharedWords4(tile.weights + (Lane() % kRowStep + kRowStep * i) * kTileStride + k);
    }
    RENGA_UNROLL
    for (int j = 0; j < kLaneTokens; ++j) {
      const Words4 x =
          SharedWords4(tile.tokens + (Lane() / kRowStep + kTokenStep * j) * kTileStride + k);
      RENGA_UNROLL
      for (int i = 0; i < kLaneRows; ++i) {
        RENGA_UNROLL
        for (int n = 0; n < 4; ++n) {
          chains[j][i] = Fma(BitsToFloat(static_cast<uint32_t>(w[i].word[n])),
                             BitsToFloat(static_cast<uint32_t>(x.word[n])), chains[j][i]);
        }
      }
    }
  }
}

template <class Format>
RENGA_DEVICE void MultiplyPlainTiles(const LinearArgs& args) {
  RENGA_SHARED(int32_t, shared, kChains * kTile * kTile);
  const Tile tile = TileOf(shared);
  float chains[kLaneTokens][kLaneRows] = {};
  for (int64_t group = WarpIndex(); group < args.matrix.groups; group += kChains) {
    for (int first = 0; first < kGroup; first += kTileWords) {
      StagePlain<Format>(args, tile, group, first);
      SyncWarp();
      MultiplyPlain(tile, chains);
      SyncWarp();
    }
  }
  StoreTile(args, tile, shared, chains);
}

}  // namespace renga::kernels::cuda

#endif  // RENGA_WORKER_KERNELS_CUDA_DEVICE_LINEAR_H_

// Matrix times activations for BF16 by tiles (tiles.h), any number of tokens.
//
// Activations are cut into two bfloat16 (activations.h), which together are off by at most 2^-17 of
// a number: 6e-12 squared on average, where the weights' own rounding is 3e-6. Each output has one
// order of summation: over the columns, 32 at a time, the high parts of the 32 and then the low
// parts, each as TDPBF16PS adds up. A missing last column counts as zero. So the bits depend
// neither on the number of tokens nor on the tiles.
#ifndef RENGA_WORKER_KERNELS_CPU_MATMUL_TILES_BF16_H_
#define RENGA_WORKER_KERNELS_CPU_MATMUL_TILES_BF16_H_

#include <cstddef>
#include <cstdint>

#include "worker/kernels/cpu/activations.h"
#include "worker/kernels/cpu/kernel_table.h"
#include "worker/kernels/cpu/matmul_output.h"
#include "worker/kernels/cpu/tiles.h"
#include "worker/kernels/cpu/unroll.h"

namespace renga::kernels::cpu {

// CpuKernels::quantize of a path with tiles: SplitBlocks are made here, other blocks by the path's
// vectors.
template <class Path>
struct TileQuantizer {
  static void Row(ActivationKind kind, const float* in, int64_t columns, int64_t tokens,
                  std::byte* out) {
    if (kind != ActivationKind::kSplit32) {
      return Path::Vectors().quantize(kind, in, columns, tokens, out);
    }
    auto* block = reinterpret_cast<SplitBlock*>(out);
    for (int64_t c = 0; c < columns; c += 32, block += tokens) {
      const int n = columns - c < 32 ? static_cast<int>(columns - c) : 32;
      Split(in + c, n, block);
    }
  }

 private:
  static constexpr uint32_t kExponent = 0x7f800000u;
  static constexpr uint32_t kHighHalf = 0xffff0000u;

  // The nearest bfloat16, as a float's bits, ties to even; but numbers near the largest stay
  // finite.
  static uint32_t Nearest(uint32_t bits) {
    const uint32_t nearest = (bits + 0x7fff + ((bits >> 16) & 1)) & kHighHalf;
    return (nearest & kExponent) == kExponent ? bits & kHighHalf : nearest;
  }

  static void Split(const float* in, int n, SplitBlock* block) {
    for (int i = 0; i < n; ++i) {
      const uint32_t bits = __builtin_bit_cast(uint32_t, in[i]);
      uint32_t high = Nearest(bits);
      uint32_t low = Nearest(__builtin_bit_cast(uint32_t, in[i] - FloatOf(high)));
      if ((bits & kExponent) == kExponent) {
        // Infinity stays, and of a NaN, a bit that makes it one.
        high = (bits & kHighHalf) | ((bits & ~(kExponent | 0x80000000u)) != 0 ? 0x400000u : 0u);
        low = 0;
      }
      block->high[i] = static_cast<uint16_t>(high >> 16);
      block->low[i] = static_cast<uint16_t>(low >> 16);
    }
    for (int i = n; i < 32; ++i) block->high[i] = block->low[i] = 0;
  }

  static float FloatOf(uint32_t bits) { return __builtin_bit_cast(float, bits); }
};

// `Path` as for TileMatmul.
template <class Path>
struct Bf16TileMatmul {
  using Isa = typename Path::Isa;
  using Tiles = typename Path::Tiles;
  using I = typename Isa::I;
  static_assert(Isa::kLanes == kTileRows);
  static constexpr ActivationKind kActivations = ActivationKind::kSplit32;
  static constexpr int kColumns = 32;  // of a tile of activations
  static constexpr int kColumnBytes = 2 * kTileRows;
  // Tokens and panels whose sums are under way together, and columns, in tiles, that they go
  // forward by: activations of those are read again for each two panels, weights for each two tiles
  // of tokens.
  static constexpr int kTokens = 64;
  static constexpr int kPanels = 8;
  static constexpr int kSteps = 16;

  static void Run(const MatmulTask& task, int64_t begin, int64_t end) {
    const int64_t part = EvenPart(task.tokens, kTokens);
    for (int64_t token = 0; token < task.tokens; token += part) {
      const int64_t left = task.tokens - token;
      const TokenTiles tokens(static_cast<int>(left < part ? left : part));
      Tiles::Configure(tokens.rows, kTileRowBytes);
      for (int64_t panel = begin; panel < end; panel += kPanels) {
        const int64_t panels = end - panel < kPanels ? end - panel : kPanels;
        Gemm(task, panel, static_cast<int>(panels), token, tokens);
      }
    }
    Tiles::Release();
  }

 private:
  // Rows of weight tiles: of kSteps tiles of a panel.
  struct Rows {
    alignas(64) std::byte bytes[kSteps][kTileRows][kTileRowBytes];
  };
  using Sums = float[kPanels][kTileRows];  // of a token

  // Columns [first, end) of a panel, in pairs, zeros for those that the matrix lacks.
  static void Decode(const std::byte* panel, int64_t columns, int64_t first, int64_t end,
                     Rows* rows) {
    std::byte* to = rows->bytes[0][0];
    const std::byte* from = panel + first * kColumnBytes;
    for (int64_t c = first; c < end; c += 2, from += 2 * kColumnBytes, to += kTileRowBytes) {
      const I even = c < columns ? Isa::WidenU16(from) : Isa::ZeroI();
      const I odd = c + 1 < columns ? Isa::WidenU16(from + kColumnBytes) : Isa::ZeroI();
      Isa::Store(to, Isa::Or(even, Isa::template ShiftLeft<16>(odd)));
    }
  }

  // `panels` <= kPanels panels from `panel` on, times `tokens` from `token` on.
  static void Gemm(const MatmulTask& task, int64_t panel, int panels, int64_t token,
                   const TokenTiles& tokens) {
    const int64_t panel_bytes = task.columns * kColumnBytes;
    const std::byte* weights = task.panels + panel * panel_bytes;
    const auto* activations = reinterpret_cast<const SplitBlock*>(task.activations) + token;
    const int64_t blocks = (task.columns + kColumns - 1) / kColumns;
    alignas(64) Sums sums[kTokens];  // kTileRows for each tile
    for (int t = 0; t < tokens.count * kTileRows; ++t) {
      for (auto& panel_sums : sums[t]) Isa::Store(panel_sums, Isa::ZeroI());
    }
    Rows rows[2];
    for (int64_t first = 0; first < blocks; first += kSteps) {
      const int64_t end = first + kSteps < blocks ? first + kSteps : blocks;
      for (int p = 0; p < panels; p += 2) {
        const int second = p + 1 < panels ? p + 1 : p;  // computed twice and forgotten
        Decode(weights + p * panel_bytes, task.columns, first * kColumns, end * kColumns, &rows[0]);
        Decode(weights + second * panel_bytes, task.columns, first * kColumns, end * kColumns,
               &rows[1]);
        for (int tile = 0; tile < tokens.count; tile += 2) {
          const SplitBlock* a = activations + first * task.tokens;
          Multiply(rows, a + tokens.First(tile), a + tokens.First(tile + 1), task.tokens,
                   static_cast<int>(end - first), &sums[tile * kTileRows][p]);
        }
      }
    }
    for (int t = 0; t < tokens.count * tokens.rows; ++t) {
      const int tile = t / tokens.rows, row = t % tokens.rows;
      for (int p = 0; p < panels; ++p) {
        StoreSum<Isa>(task, panel + p, token + tokens.First(tile) + row,
                      Isa::LoadF(sums[tile * kTileRows + row][p]));
      }
    }
  }

  // Goes `steps` tiles forward with two panels and two tiles of tokens, whose activations begin at
  // `a0` and `a1` and lie `apart` blocks apart. `sums` are the first token's of the first panel.
  static void Multiply(const Rows* weights, const SplitBlock* a0, const SplitBlock* a1,
                       int64_t apart, int steps, float (*sums)[kTileRows]) {
    float* const of_tiles[4] = {sums[0], sums[1], sums[kTileRows * kPanels],
                                sums[kTileRows * kPanels + 1]};
    Unroll<4>([&](auto tile) RENGA_INLINE_LAMBDA {
      Tiles::template Load<tile>(of_tiles[tile], sizeof(Sums));
    });
    for (int step = 0; step < steps; ++step, a0 += apart, a1 += apart) {
      Tiles::template Load<6>(weights[0].bytes[step], kTileRowBytes);
      Tiles::template Load<7>(weights[1].bytes[step], kTileRowBytes);
      Add(a0->high, a1->high);
      Add(a0->low, a1->low);
    }
    Unroll<4>([&](auto tile) RENGA_INLINE_LAMBDA {
      Tiles::template Store<tile>(of_tiles[tile], sizeof(Sums));
    });
  }

  RENGA_WORD void Add(const uint16_t* a0, const uint16_t* a1) {
    Tiles::template Load<4>(a0, sizeof(SplitBlock));
    Tiles::template DotBf16<0, 4, 6>();
    Tiles::template DotBf16<1, 4, 7>();
    Tiles::template Load<5>(a1, sizeof(SplitBlock));
    Tiles::template DotBf16<2, 5, 6>();
    Tiles::template DotBf16<3, 5, 7>();
  }
};

}  // namespace renga::kernels::cpu

#endif  // RENGA_WORKER_KERNELS_CPU_MATMUL_TILES_BF16_H_

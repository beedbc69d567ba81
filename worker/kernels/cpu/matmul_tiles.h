// Matrix times activations for the quantised formats and many tokens, by tiles (tiles.h).
//
// The bits are those of matmul_quantized.h: a block's dot product is an exact integer there and
// here, and what follows it is the same code. Few tokens go to those kernels.
//
// A block of weights becomes rows of tiles once for up to kTokens tokens. Where sub-blocks have
// integer scales, the codes are multiplied by them then, so that one sum in a tile runs over the
// whole block: products that need more than a byte are cut into a low (unsigned) and a high
// (signed) one, summed up apart.
//
// Tiles multiply beside the vector units. So that both have work, what came out of one pass of
// tiles is scaled and added up between the steps of the next pass.
#ifndef RENGA_WORKER_KERNELS_CPU_MATMUL_TILES_H_
#define RENGA_WORKER_KERNELS_CPU_MATMUL_TILES_H_

#include <cstddef>
#include <cstdint>

#include "base/data_type.h"
#include "worker/kernels/cpu/activations.h"
#include "worker/kernels/cpu/kernel_table.h"
#include "worker/kernels/cpu/matmul_output.h"
#include "worker/kernels/cpu/matmul_quantized.h"
#include "worker/kernels/cpu/tiles.h"
#include "worker/kernels/cpu/unroll.h"

namespace renga::kernels::cpu {

// Below this, making the rows of tiles costs more than they save. An estimate.
inline constexpr int64_t kFewestTileTokens = 16;

// How a block's weights fit into bytes.
template <class Format, bool super>
struct TileBytes {
  static constexpr int kPlanes = 1;
  static constexpr bool kNegated = false;
};

template <class Format>
struct TileBytes<Format, true> {
  static constexpr int kLeast = Format::kSigned ? -127 : -Format::kOffset;
  static constexpr int MostCode() {
    if constexpr (Format::kSigned) {
      return 127;
    } else {
      return Format::kMaxCode - Format::kOffset;
    }
  }
  static constexpr int Smaller(int a, int b) { return a < b ? a : b; }
  // The smallest product of a code and a scale; given -1, of which the sign is turned.
  static constexpr int Smallest(int sign) {
    const int a = sign * kLeast, b = sign * MostCode();
    return Smaller(Smaller(a * Format::kMinScale, a * Format::kMaxScale),
                   Smaller(b * Format::kMinScale, b * Format::kMaxScale));
  }
  static constexpr bool Fits(int sign) { return Smallest(sign) >= -128 && Smallest(-sign) > -128; }
  // Q3_K's products reach from -124 to 128.
  static constexpr bool kNegated = !Fits(1) && Fits(-1);
  static constexpr int kPlanes = Fits(1) || Fits(-1) ? 1 : 2;
};

// `Path` has the types Isa (16 lanes) and Tiles, and Vectors(): the table of the path that has the
// same Isa's kernels without tiles.
template <class Path, class FormatT, base::DataType type>
struct TileMatmul {
  using Format = FormatT;
  using Isa = typename Path::Isa;
  using Tiles = typename Path::Tiles;
  using I = typename Isa::I;
  using F = typename Isa::F;
  using Base = QuantizedMatmul<Format>;
  using Block = typename Base::Block;
  static_assert(Isa::kLanes == kTileRows && !Base::kWords);
  static constexpr bool kSuper = Base::kSuper;
  static constexpr int kPlanes = TileBytes<Format, kSuper>::kPlanes;
  static constexpr bool kNegated = TileBytes<Format, kSuper>::kNegated;
  // Bytes of a tile's row of activations, and how many such steps a block takes.
  static constexpr int kDepth = kSuper ? 64 : 32;
  static constexpr int kSteps = Base::kElements / kDepth;
  static constexpr int kPairs = kSuper && Format::kHasMin ? Base::kPairs : 0;
  // Tokens that share the rows of tiles, and panels that share a look at the activations. Their
  // sums stay in the first-level cache where they are touched every 32 numbers.
  static constexpr int kTokens = kSuper ? 128 : 64;
  static constexpr int kPanels = 4;
  static constexpr ActivationKind kActivations = Base::kActivations;

  static void Run(const MatmulTask& task, int64_t begin, int64_t end) {
    if (task.tokens < kFewestTileTokens) {
      return Path::Vectors().format(type).matmul(task, begin, end);
    }
    const int64_t part = EvenPart(task.tokens, kTokens);
    for (int64_t token = 0; token < task.tokens; token += part) {
      const int64_t left = task.tokens - token;
      const TokenTiles tokens(static_cast<int>(left < part ? left : part));
      Tiles::Configure(tokens.rows, kDepth);
      for (int64_t panel = begin; panel < end; panel += kPanels) {
        const int64_t panels = end - panel < kPanels ? end - panel : kPanels;
        Gemm(task, panel, static_cast<int>(panels), token, tokens);
      }
    }
    Tiles::Release();
  }

 private:
  // The rows of weight tiles of a block of one panel.
  struct Rows {
    alignas(64) std::byte bytes[kPlanes][Base::kGroups][kTileRowBytes];
  };
  struct Scales {
    F scale;
    F min;
    I pairs[kPairs > 0 ? kPairs : 1];
  };
  // Two tiles of tokens times a block of two panels: what is needed to add up what came out.
  struct Pass {
    const Block* activations[2] = {};  // each tile's first token
    const Scales* scales = nullptr;    // of the two panels
    F* sums = nullptr;                 // of the first token and panel
    int rows = 0;
    alignas(64) int32_t dots[kPlanes][4][kTileRows][kTileRows];  // [sums' tile]
  };

  // ---- Weights --------------------------------------------------------------------------------

  static void Decode(const Format& format, Rows* rows, Scales* scales) {
    Unroll<Format::kSections>([&](auto section) RENGA_INLINE_LAMBDA {
      I scale[Format::kOutputs];
      Unroll<Format::kOutputs>([&](auto o) RENGA_INLINE_LAMBDA {
        scale[o] = BothWords<Format::Group(section, 0, o)>(format);
      });
      Unroll<Format::kSteps>([&](auto step) RENGA_INLINE_LAMBDA {
        I codes[Format::kOutputs];
        format.template Codes<section, step>(codes);
        Unroll<Format::kOutputs>([&](auto o) RENGA_INLINE_LAMBDA {
          StoreRow(Signed(codes[o]), scale[o], Format::Group(section, step, o), rows);
        });
      });
    });
    Unroll<kPairs>([&](auto j) RENGA_INLINE_LAMBDA {
      // Looked up even if never called, by clang.
      if constexpr (kPairs > 0) scales->pairs[j] = format.template Pairs<j>();
    });
    scales->scale = format.Scale();
    if constexpr (Format::kHasMin) scales->min = format.Min();
  }

  // The integer scale of a group's sub-block as pairs of int16.
  template <int group>
  RENGA_WORD I BothWords(const Format& format) {
    if constexpr (kSuper) {
      const I scale = format.template SubScale<group / Base::kSubGroups>();
      return Isa::Or(Isa::And(scale, Isa::SetI(0xffff)), Isa::template ShiftLeft<16>(scale));
    } else {
      return Isa::ZeroI();
    }
  }

  // Codes without their offset, in bytes; the negative where kNegated.
  RENGA_WORD I Signed(I codes) {
    if constexpr (Format::kSigned || Format::kOffset == 0) {
      static_assert(!kNegated);
      return codes;
    }
    const I offset = Isa::SetByte(Format::kOffset);
    return kNegated ? Isa::SubByte(offset, codes) : Isa::SubByte(codes, offset);
  }

  RENGA_WORD void StoreRow(I codes, I scale, int group, Rows* rows) {
    if constexpr (!kSuper) {
      Isa::Store(rows->bytes[0][group], codes);
      return;
    }
    const I even = Isa::MulWords(Isa::EvenWords(codes), scale);
    const I odd = Isa::MulWords(Isa::OddWords(codes), scale);
    const I low_bytes = Isa::SetI(0x00ff00ff), high_bytes = Isa::SetI(static_cast<int>(0xff00ff00));
    Isa::Store(
        rows->bytes[0][group],
        Isa::Or(Isa::And(even, low_bytes), Isa::And(Isa::template ShiftLeft<8>(odd), high_bytes)));
    if constexpr (kPlanes == 2) {
      Isa::Store(rows->bytes[1][group],
                 Isa::Or(Isa::And(Isa::template ShiftRight<8>(even), low_bytes),
                         Isa::And(odd, high_bytes)));
    }
  }

  // ---- Products -------------------------------------------------------------------------------

  // `panels` <= kPanels panels from `panel` on, times `tokens` from `token` on.
  static void Gemm(const MatmulTask& task, int64_t panel, int panels, int64_t token,
                   const TokenTiles& tokens) {
    const int64_t blocks = task.columns / Base::kElements;
    const std::byte* weights = task.panels + panel * blocks * Base::kPanelBlockBytes;
    const Block* activations = reinterpret_cast<const Block*>(task.activations) + token;
    F sums[kTokens * kPanels];  // kTileRows rows for each tile
    for (int i = 0; i < tokens.count * kTileRows * kPanels; ++i) sums[i] = Isa::ZeroF();
    Rows rows[2];
    // The pass under way and the one before it, which may be of other panels.
    Pass passes[2];
    Scales scales[2][2];
    int turn = 0, scales_turn = 0;
    for (int64_t b = 0; b < blocks; ++b, activations += task.tokens) {
      for (int p = 0; p < panels; p += 2) {
        Scales* const pair = scales[scales_turn ^= 1];
        const int second = p + 1 < panels ? p + 1 : p;  // computed twice and forgotten
        Decode(Format(weights + (p * blocks + b) * Base::kPanelBlockBytes), &rows[0], &pair[0]);
        Decode(Format(weights + (second * blocks + b) * Base::kPanelBlockBytes), &rows[1],
               &pair[1]);
        for (int tile = 0; tile < tokens.count; tile += 2, turn ^= 1) {
          Pass& pass = passes[turn];
          for (int i = 0; i < 2; ++i) pass.activations[i] = activations + tokens.First(tile + i);
          pass.scales = pair;
          pass.sums = sums + tile * kTileRows * kPanels + p;
          pass.rows = tokens.rows;
          Multiply(rows, passes[turn ^ 1], &pass);
        }
      }
    }
    AddUp(passes[turn ^ 1], 0, 1);
    for (int t = 0; t < tokens.count * tokens.rows; ++t) {
      const int tile = t / tokens.rows, row = t % tokens.rows;
      const F* const sum = sums + (tile * kTileRows + row) * kPanels;
      for (int p = 0; p < panels; ++p) {
        StoreSum<Isa>(task, panel + p, token + tokens.First(tile) + row, sum[p]);
      }
    }
  }

  // The dot products of a pass; meanwhile, the pass before is added up.
  static void Multiply(const Rows* weights, const Pass& before, Pass* pass) {
    Unroll<kPlanes>([&](auto plane) RENGA_INLINE_LAMBDA {
      Unroll<4>([&](auto tile) RENGA_INLINE_LAMBDA { Tiles::template Zero<tile>(); });
      for (int step = 0; step < kSteps; ++step) {
        constexpr int kRows = kDepth / 4;
        Tiles::template Load<4>(pass->activations[0]->codes + step * kDepth, sizeof(Block));
        Tiles::template Load<6>(weights[0].bytes[plane][step * kRows], kTileRowBytes);
        Dot<plane, 0, 4, 6>();
        Tiles::template Load<7>(weights[1].bytes[plane][step * kRows], kTileRowBytes);
        Dot<plane, 1, 4, 7>();
        Tiles::template Load<5>(pass->activations[1]->codes + step * kDepth, sizeof(Block));
        Dot<plane, 2, 5, 6>();
        Dot<plane, 3, 5, 7>();
        AddUp(before, plane * kSteps + step, kPlanes * kSteps);
      }
      Unroll<4>([&](auto tile) RENGA_INLINE_LAMBDA {
        Tiles::template Store<tile>(pass->dots[plane][tile], sizeof(pass->dots[plane][tile][0]));
      });
    });
  }

  template <int plane, int sums, int activations, int weights>
  RENGA_WORD void Dot() {
    if constexpr (plane + 1 < kPlanes) {
      Tiles::template DotUnsigned<sums, activations, weights>();
    } else {
      Tiles::template DotSigned<sums, activations, weights>();
    }
  }

  // Adds part `part` of `parts` of a pass' rows to the sums.
  RENGA_WORD void AddUp(const Pass& pass, int part, int parts) {
    const int begin = pass.rows * part / parts, end = pass.rows * (part + 1) / parts;
    if (begin == end) return;
    // Copied, so that they stay in registers while sums are stored.
    Scales w[2];
    Unroll<2>([&](auto p) RENGA_INLINE_LAMBDA {
      w[p].scale = pass.scales[p].scale;
      w[p].min = pass.scales[p].min;
      Unroll<kPairs>([&](auto j) RENGA_INLINE_LAMBDA { w[p].pairs[j] = pass.scales[p].pairs[j]; });
    });
    for (int row = begin; row < end; ++row) {
      AddRow(pass, w, 0, row);
      AddRow(pass, w, 1, row);
    }
  }

  RENGA_WORD void AddRow(const Pass& pass, const Scales* w, int tile, int row) {
    const Block& a = pass.activations[tile][row];
    F* const sums = pass.sums + (tile * kTileRows + row) * kPanels;
    Unroll<2>([&](auto p) RENGA_INLINE_LAMBDA {
      I dot = Isa::Load(pass.dots[0][2 * tile + p][row]);
      if constexpr (kPlanes == 2) {
        const I high = Isa::Load(pass.dots[1][2 * tile + p][row]);
        dot = Isa::AddI(dot, Isa::template ShiftLeft<8>(high));
      }
      if constexpr (kNegated) dot = Isa::SubI(Isa::ZeroI(), dot);
      I mins = Isa::ZeroI();
      if constexpr (kPairs > 0) {
        mins = Base::SumPairs([&](auto j) RENGA_INLINE_LAMBDA { return w[p].pairs[j]; }, a);
      }
      sums[p] = Base::AddScaled(dot, mins, w[p].scale, w[p].min, a, sums[p]);
    });
  }
};

}  // namespace renga::kernels::cpu

#endif  // RENGA_WORKER_KERNELS_CPU_MATMUL_TILES_H_

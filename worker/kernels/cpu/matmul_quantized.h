// Matrix times activations for every quantised format, in the words of an instruction set.
//
// One scheme for all: a panel has kLanes rows, so a vector holds, per row, four neighbouring codes
// or one sum; activations are broadcast. No sum ever crosses lanes. For each output (row, token)
// and each block in order:
//   the block's integer dot product, exact in int32;
//   sum = MulAdd(float(dot), weight scale * activation scale, sum);
//   where the format has a min, a second MulAdd.
// That sequence is the same for few tokens (Few) and for many (Gemm), for any tile and any panel,
// so the bits are too.
//
// Few takes codes straight from the packed bytes, of a few distant panels in turn, and multiplies
// them with up to four tokens while they are in registers. Gemm decodes a block of two panels once
// and uses it for tiles of tokens; then it is the dot products that count.
#ifndef RENGA_WORKER_KERNELS_CPU_MATMUL_QUANTIZED_H_
#define RENGA_WORKER_KERNELS_CPU_MATMUL_QUANTIZED_H_

#include <array>
#include <cstddef>
#include <cstdint>
#include <type_traits>
#include <utility>

#include "worker/kernels/cpu/activations.h"
#include "worker/kernels/cpu/kernel_table.h"
#include "worker/kernels/cpu/matmul_output.h"
#include "worker/kernels/cpu/quantized_dot.h"
#include "worker/kernels/cpu/unroll.h"

namespace renga::kernels::cpu {

template <class FormatT>
struct QuantizedMatmul {
  using Format = FormatT;
  using Isa = typename Format::Isa;
  using I = typename Isa::I;
  using F = typename Isa::F;
  static constexpr bool kWords = Format::kSigned && Isa::kWideSigned;
  using Dot = std::conditional_t<kWords, WordDot<Format>, ByteDot<Format>>;
  // For many tokens.
  static constexpr bool kCrosses = kWords && Format::kElements == 32;
  using TileDot = std::conditional_t<kCrosses, CrossDot<Format>, Dot>;
  using Block = typename Dot::Block;
  using Codes = typename Dot::Codes;

  static constexpr int kLanes = Isa::kLanes;
  static constexpr int kElements = Format::kElements;
  static constexpr bool kSuper = kElements == 256;
  static constexpr int kGroups = kElements / 4;
  static constexpr int kSubBlocks = kElements / Format::kScaleElements;
  static constexpr int kSubGroups = Format::kScaleElements / 4;
  // The offset that is taken off afterwards.
  static constexpr int kOffset = Dot::kStarts ? 0 : Dot::kOffset;
  // Whether integer scales or mins multiply the activations' sums.
  static constexpr bool kNeedsPairs = kSuper && (Format::kHasMin || kOffset != 0);
  static constexpr int kPairs = kNeedsPairs ? kSubBlocks / 2 : 0;
  static constexpr int64_t kPanelBlockBytes = static_cast<int64_t>(Format::kRowBytes) * kLanes;
  // Few: its most tokens, and those that share registers with a step's codes; places of the weights
  // that are read in turn, and how far ahead memory is asked for there.
  static constexpr bool kSharesCodes = Isa::kSharesCodes && Format::kWidelyUsed;
  static constexpr int kFewTokens = kSharesCodes ? 8 : 1;
  static constexpr int kSharingTokens = Format::kOutputs > 2 ? 2 : 4;
  static constexpr int kStreams = kSuper ? Isa::kStreams256 : Isa::kStreams;
  static constexpr int64_t kPrefetchBytes = kSuper ? Isa::kPrefetchBytes256 : Isa::kPrefetchBytes;
  // Token tiles: those sharing registers, and those sharing a decoded block.
  static constexpr int kTile = Isa::kTileTokens;
  static constexpr int kTokens = 64;

  static constexpr ActivationKind kActivations =
      kWords ? (kSuper ? ActivationKind::kWords256 : ActivationKind::kWords32)
             : (kSuper ? ActivationKind::kBytes256 : ActivationKind::kBytes32);

  static void Run(const MatmulTask& task, int64_t begin, int64_t end) {
    if (task.tokens == 1) return RunFew<1>(task, begin, end);
    if constexpr (kSharesCodes) {
      if (task.tokens == 2) return RunFew<2>(task, begin, end);
      if (task.tokens <= kFewTokens) return RunFew<kSharingTokens>(task, begin, end);
    }
    for (int64_t token = 0; token < task.tokens; token += kTokens) {
      const int64_t left = task.tokens - token;
      const int n = static_cast<int>(left < kTokens ? left : kTokens);
      for (int64_t panel = begin; panel < end; panel += 2) {
        Gemm(task, panel, panel + 1 < end ? panel + 1 : panel, token, n);
      }
    }
  }

 private:
  // ---- What a block adds to a sum once its dot product is known -------------------------------

  RENGA_WORD const int16_t* PairSums(const ByteBlock<256>& a) {
    return Format::kScaleElements == 16 ? a.sums16 : a.sums32;
  }
  // What the sum of products that begins with `group` begins with.
  RENGA_WORD I FirstPartial(const Block& a, int group) {
    if constexpr (Dot::kStarts) return Dot::Start(a, group);
    return Isa::ZeroI();
  }

  // `pair(j)` gives Pairs<j>, scale and min the block's float vectors.
  template <class PairOf>
  RENGA_WORD F AddBlock(I dot, F scale, F min, const PairOf& pair, const Block& a, F sum) {
    I correction = Isa::ZeroI();
    if constexpr (kNeedsPairs) correction = SumPairs(pair, a);
    if constexpr (kOffset != 0 && kSuper) {
      dot = Isa::SubI(dot, Isa::template ShiftLeft<Log2(kOffset)>(correction));
    } else if constexpr (kOffset != 0) {
      dot = Isa::AddI(dot, Isa::template ShiftLeft<Log2(kOffset)>(Isa::Broadcast4(&a.start)));
    }
    return AddScaled(dot, correction, scale, min, a, sum);
  }

 public:
  // These two are shared with other kernels (matmul_tiles.h), and so are the bits.

  // The sum of the sub-blocks' integer mins, or scales, times the sums of their activations.
  template <class PairOf>
  RENGA_WORD I SumPairs(const PairOf& pair, const Block& a) {
    I total = Isa::ZeroI();
    Unroll<kPairs>([&](auto j) RENGA_INLINE_LAMBDA {
      total = Isa::MulPairs(total, pair(j), Isa::Broadcast4(PairSums(a) + 2 * j));
    });
    return total;
  }

  // `correction` is SumPairs of the mins for formats of 256 numbers with mins.
  RENGA_WORD F AddScaled(I dot, I correction, F scale, F min, const Block& a, F sum) {
    sum = Isa::MulAddF(Isa::ToF(dot), Isa::MulF(scale, Isa::SetF(a.scale)), sum);
    if constexpr (Format::kHasMin && kSuper) {
      sum = Isa::MulAddF(Isa::ToF(correction), Isa::MulF(min, Isa::SetF(a.negative_scale)), sum);
    } else if constexpr (Format::kHasMin) {
      sum = Isa::MulAddF(min, Isa::SetF(a.scaled_sum), sum);
    }
    return sum;
  }

 private:
  // ---- Few tokens -----------------------------------------------------------------------------

  // `sharing` tokens at a time. One token waits for memory, so a few panels are taken in turn; more
  // wait for the arithmetic.
  template <int sharing>
  static void RunFew(const MatmulTask& task, int64_t begin, int64_t end) {
    if constexpr (sharing > 1) {
      for (int64_t panel = begin; panel < end; ++panel) Few<sharing, 1>(task, panel, 0, 1);
    } else {
      const int64_t apart = (end - begin + kStreams - 1) / kStreams;
      for (int64_t panel = begin; panel < begin + apart; ++panel) {
        const auto n = static_cast<int>((end - panel + apart - 1) / apart);
        Few<1, kStreams>(task, panel, apart, n);
      }
    }
  }

  // `n` <= streams panels from `first` on, `apart` panels apart.
  template <int sharing, int streams>
  static void Few(const MatmulTask& task, int64_t first, int64_t apart, int n) {
    constexpr int kTokenGroups = sharing == 1 ? 1 : kFewTokens / sharing;
    const int64_t blocks = task.columns / kElements;
    const int64_t stream_bytes = apart * blocks * kPanelBlockBytes;
    const std::byte* weights = task.panels + first * blocks * kPanelBlockBytes;
    const int64_t ahead = task.ahead_bytes != 0 ? task.ahead_bytes : kPrefetchBytes;
    const Block* activations = reinterpret_cast<const Block*>(task.activations);
    const int tokens = static_cast<int>(task.tokens);
    F sums[kTokenGroups][streams][sharing];
    for (auto& group : sums) {
      for (auto& stream : group) {
        for (F& sum : stream) sum = Isa::ZeroF();
      }
    }
    for (int64_t b = 0; b < blocks; ++b, weights += kPanelBlockBytes, activations += tokens) {
      for (int g = 0; g * sharing < tokens; ++g) {
        const Block* shared[sharing];
        // The last one stands in for those that are not there.
        for (int t = 0; t < sharing; ++t) {
          const int token = g * sharing + t;
          shared[t] = activations + (token < tokens ? token : tokens - 1);
        }
        FewBlocks<sharing, streams>(weights, stream_bytes, n, ahead, shared, sums[g]);
      }
    }
    for (int t = 0; t < tokens; ++t) {
      for (int s = 0; s < n; ++s) {
        StoreSum<Isa>(task, first + s * apart, t, sums[t / sharing][s][t % sharing]);
      }
    }
  }

  // One block of `n` panels, `apart` bytes apart, section by section in turn, times the tokens `a`.
  template <int sharing, int streams>
  RENGA_WORD void FewBlocks(const std::byte* weights, int64_t apart, int n, int64_t ahead,
                            const Block* const* a, F (*sums)[sharing]) {
    // Of those beyond n, the first panel's, which nothing is done with.
    const auto block = [&](int s) RENGA_INLINE_LAMBDA { return weights + (s < n ? s * apart : 0); };
    const std::array<Format, streams> formats =
        FormatsOf(block, std::make_index_sequence<streams>());
    I dots[streams][sharing];
    for (auto& stream : dots) {
      Unroll<sharing>([&](auto t) RENGA_INLINE_LAMBDA { stream[t] = Isa::ZeroI(); });
    }
    Unroll<Format::kSections>([&](auto section) RENGA_INLINE_LAMBDA {
      ForStreams<streams>(n, [&](int s) RENGA_INLINE_LAMBDA {
        Prefetch<section>(formats[s].block + ahead);
        AddSection<section, sharing>(formats[s], a, dots[s]);
      });
    });
    ForStreams<streams>(n, [&](int s) RENGA_INLINE_LAMBDA {
      const Format& format = formats[s];
      const auto pair = [&](auto j) RENGA_INLINE_LAMBDA {
        // Looked up even if never called, by clang.
        if constexpr (kNeedsPairs) return format.template Pairs<j>();
      };
      F min = Isa::ZeroF();
      if constexpr (Format::kHasMin) min = format.Min();
      Unroll<sharing>([&](auto t) RENGA_INLINE_LAMBDA {
        sums[s][t] = AddBlock(dots[s][t], format.Scale(), min, pair, *a[t], sums[s][t]);
      });
    });
  }

  // body(s) for n <= streams; a loop only where there may be several.
  template <int streams, class Body>
  RENGA_WORD void ForStreams(int n, const Body& body) {
    if constexpr (streams == 1) return body(0);
    for (int s = 0; s < n; ++s) body(s);
  }

  template <class BlockOf, size_t... s>
  RENGA_WORD std::array<Format, sizeof...(s)> FormatsOf(const BlockOf& block,
                                                        std::index_sequence<s...>) {
    return {Format(block(s))...};
  }

  // Asks for the section's share of a block.
  template <int section>
  RENGA_WORD void Prefetch(const std::byte* block) {
    // Else compilers keep each line's address, in memory, and count them all up.
    asm("" : "+r"(block));
    constexpr int kLines = (kPanelBlockBytes + 63) / 64;
    constexpr int kFirst = kLines * section / Format::kSections;
    constexpr int kEnd = kLines * (section + 1) / Format::kSections;
    for (int line = kFirst; line < kEnd; ++line) {
      __builtin_prefetch(block + 64 * line, 0, Isa::kPrefetchLevel);
    }
  }

  // Adds the dot products of a section, times their integer scales where the format has them.
  template <int section, int sharing>
  RENGA_WORD void AddSection(const Format& format, const Block* const* a, I* dots) {
    constexpr int kOutputs = Format::kOutputs;
    I partial[kOutputs][sharing];
    Unroll<kOutputs * sharing>([&](auto i) RENGA_INLINE_LAMBDA {
      constexpr int kGroup = Format::Group(section, 0, i / sharing);
      // Outputs of a block of 32 are parts of one sum, and no larger than the whole may be.
      constexpr bool kFirst = kSuper || i < sharing;
      partial[i / sharing][i % sharing] =
          kFirst ? FirstPartial(*a[i % sharing], kGroup) : Isa::ZeroI();
    });
    Unroll<Format::kSteps>([&](auto step) RENGA_INLINE_LAMBDA {
      if constexpr (Isa::kStepByStep && sharing == 1) asm volatile("" ::: "memory");
      I raw[kOutputs];
      format.template Codes<section, step>(raw);
      Unroll<kOutputs>([&](auto o) RENGA_INLINE_LAMBDA {
        constexpr int kGroup = Format::Group(section, step, o);
        const Codes codes = Dot::Prepare(raw[o]);
        Unroll<sharing>([&](auto t) RENGA_INLINE_LAMBDA {
          partial[o][t] = Dot::Add(partial[o][t], codes, Dot::Load(*a[t], kGroup));
        });
        if constexpr ((step + 1) % Dot::FlushSteps() == 0 || step + 1 == Format::kSteps) {
          FlushPartials<kGroup / kSubGroups, sharing>(format, partial[o], dots);
          Unroll<sharing>([&](auto t) RENGA_INLINE_LAMBDA {
            partial[o][t] = kSuper && step + 1 < Format::kSteps ? FirstPartial(*a[t], kGroup + 1)
                                                                : Isa::ZeroI();
          });
        }
      });
    });
  }

  // Adds partial sums of one sub-block.
  template <int sub_block, int sharing>
  RENGA_WORD void FlushPartials(const Format& format, I* partial, I* dots) {
    if constexpr (kSuper) {
      const I scale = format.template SubScale<sub_block>();
      Unroll<sharing>(
          [&](auto t) RENGA_INLINE_LAMBDA { dots[t] = Dot::Finish(dots[t], partial[t], scale); });
    } else {
      Unroll<sharing>([&](auto t)
                          RENGA_INLINE_LAMBDA { dots[t] = Dot::Finish(dots[t], partial[t]); });
    }
  }

  // ---- Many tokens ----------------------------------------------------------------------------

  struct Decoded {
    Codes codes[kGroups];
    I scales[kSuper ? kSubBlocks : 1];
    I pairs[kNeedsPairs ? kPairs : 1];
    I start;  // of sums, beside what activations add to it, where kCrosses
    F scale;
    F min;
  };

  static void Decode(const Format& format, Decoded* out) {
    Unroll<Format::kSections>([&](auto section) RENGA_INLINE_LAMBDA {
      Unroll<Format::kSteps>([&](auto step) RENGA_INLINE_LAMBDA {
        I codes[Format::kOutputs];
        format.template Codes<section, step>(codes);
        Unroll<Format::kOutputs>([&](auto o) RENGA_INLINE_LAMBDA {
          out->codes[Format::Group(section, step, o)] = Dot::Prepare(codes[o]);
        });
      });
    });
    if constexpr (kCrosses) {
      out->start = Isa::ZeroI();
      for (const Codes& codes : out->codes) out->start = TileDot::SubOwn(out->start, codes);
    }
    if constexpr (kSuper) {
      Unroll<kSubBlocks>(
          [&](auto s) RENGA_INLINE_LAMBDA { out->scales[s] = format.template SubScale<s>(); });
      Unroll<kPairs>([&](auto j)
                         RENGA_INLINE_LAMBDA { out->pairs[j] = format.template Pairs<j>(); });
    }
    out->scale = format.Scale();
    if constexpr (Format::kHasMin) out->min = format.Min();
    if constexpr (Isa::kTokenPairs) InterleaveGroups(out->codes);
  }

  // For PairDots: of each two groups, first those of half the rows, then those of the others.
  static void InterleaveGroups(Codes* codes) {
    for (int g = 0; g < kGroups; g += 2) {
      const Codes first = codes[g], second = codes[g + 1];
      codes[g] = Isa::InterleaveFirst(first, second);
      codes[g + 1] = Isa::InterleaveSecond(first, second);
    }
  }

  // Two panels and `n` <= kTokens tokens from `token` on; the panels may be the same.
  static void Gemm(const MatmulTask& task, int64_t first, int64_t second, int64_t token, int n) {
    const int64_t blocks = task.columns / kElements;
    const std::byte* weights[2] = {task.panels + first * blocks * kPanelBlockBytes,
                                   task.panels + second * blocks * kPanelBlockBytes};
    const Block* activations = reinterpret_cast<const Block*>(task.activations) + token;
    F sums[kTokens][2];
    for (int t = 0; t < n; ++t) {
      sums[t][0] = sums[t][1] = Isa::ZeroF();
      // Each token's outputs lie on a page of their own.
      __builtin_prefetch(task.out + (token + t) * task.out_stride + first * kLanes, 1);
    }
    Decoded decoded[2];
    for (int64_t b = 0; b < blocks; ++b, activations += task.tokens) {
      Decode(Format(weights[0] + b * kPanelBlockBytes), &decoded[0]);
      Decode(Format(weights[1] + b * kPanelBlockBytes), &decoded[1]);
      PrefetchBlock(weights[0] + (b + 1) * kPanelBlockBytes);
      PrefetchBlock(weights[1] + (b + 1) * kPanelBlockBytes);
      int t = 0;
      for (; t + kTile <= n; t += kTile) {
        if constexpr (!kSuper) PrefetchTile(activations + task.tokens + t);
        Tile<kTile>(decoded, activations + t, sums + t);
      }
      for (; t < n; ++t) Tile<1>(decoded, activations + t, sums + t);
    }
    for (int t = 0; t < n; ++t) {
      StoreSum<Isa>(task, first, token + t, sums[t][0]);
      if (second != first) StoreSum<Isa>(task, second, token + t, sums[t][1]);
    }
  }

  // Asks for a panel's next block, which is decoded when all tiles are done with this one.
  RENGA_WORD void PrefetchBlock(const std::byte* block) {
    for (int64_t at = 0; at < kPanelBlockBytes; at += 64) __builtin_prefetch(block + at);
  }

  // Asks for a tile's activations of the next block, which do not follow this one's in memory.
  // Blocks of 256 numbers are used long enough without.
  RENGA_WORD void PrefetchTile(const Block* a) {
    constexpr int kBytes = kTile * static_cast<int>(sizeof(Block));
    for (int at = 0; at < kBytes; at += 64) {
      __builtin_prefetch(reinterpret_cast<const std::byte*>(a) + at);
    }
  }

  // One block of two panels times `tokens` tokens.
  template <int tokens>
  static void Tile(const Decoded* w, const Block* a, F (*sums)[2]) {
    I dots[tokens][2];
    for (int t = 0; t < tokens; ++t) dots[t][0] = dots[t][1] = Isa::ZeroI();
    if constexpr (Isa::kTokenPairs) {
      PairDots<tokens>(w, a, dots);
    } else {
      Dots<tokens>(w, a, dots);
    }
    for (int t = 0; t < tokens; ++t) {
      const auto added = [&](int p) RENGA_INLINE_LAMBDA {
        const auto pair = [&](auto j) RENGA_INLINE_LAMBDA { return w[p].pairs[j]; };
        return AddBlock(dots[t][p], w[p].scale, w[p].min, pair, a[t], sums[t][p]);
      };
      // Both before either is stored, so that the token's scale and sums are loaded once.
      const F first = added(0), second = added(1);
      sums[t][0] = first;
      sums[t][1] = second;
    }
  }

  RENGA_WORD I FirstPartial(const Decoded& w, const Block& a, int group) {
    if constexpr (kCrosses) {
      return Isa::AddI(w.start, Isa::Broadcast4(&a.start));
    } else {
      return FirstPartial(a, group);
    }
  }

  // The dot products of a tile, times their integer scales where the format has them.
  template <int tokens>
  RENGA_WORD void Dots(const Decoded* w, const Block* a, I (*dots)[2]) {
    constexpr int kFlush = Dot::FlushSteps() < kSubGroups ? Dot::FlushSteps() : kSubGroups;
    static_assert(kSubGroups % kFlush == 0 &&
                  (!Dot::kStarts || kFlush == kSubGroups || (Dot::kWordSums && kFlush == 2)));
    for (int g = 0; g < kGroups; g += kFlush) {
      I partial[tokens][2];
      Unroll<tokens>([&](auto t) RENGA_INLINE_LAMBDA {
        partial[t][0] = FirstPartial(w[0], a[t], g);
        partial[t][1] = FirstPartial(w[1], a[t], g);
      });
      Unroll<kFlush>([&](auto step) RENGA_INLINE_LAMBDA {
        const Codes codes0 = Dot::Get(w[0].codes[g + step]);
        const Codes codes1 = Dot::Get(w[1].codes[g + step]);
        Unroll<tokens>([&](auto t) RENGA_INLINE_LAMBDA {
          const auto activations = Dot::Load(a[t], g + step);
          partial[t][0] = TileDot::Add(partial[t][0], codes0, activations);
          partial[t][1] = TileDot::Add(partial[t][1], codes1, activations);
        });
      });
      Unroll<tokens>([&](auto t) RENGA_INLINE_LAMBDA {
        if constexpr (kSuper) {
          const int s = g / kSubGroups;
          dots[t][0] = Dot::Finish(dots[t][0], partial[t][0], w[0].scales[s]);
          dots[t][1] = Dot::Finish(dots[t][1], partial[t][1], w[1].scales[s]);
        } else {
          dots[t][0] = Dot::Finish(dots[t][0], partial[t][0]);
          dots[t][1] = Dot::Finish(dots[t][1], partial[t][1]);
        }
      });
    }
  }

  // The same two tokens at a time. The last of an odd number is paired with itself.
  template <int tokens>
  RENGA_WORD void PairDots(const Decoded* w, const Block* a, I (*dots)[2]) {
    static_assert(!kWords && kSubGroups % 2 == 0);
    constexpr int kTilePairs = (tokens + 1) / 2;
    for (int g = 0; g < kGroups; g += kSubGroups) {
      I partial[kTilePairs][4];  // two panels, two halves of the rows of each
      Unroll<4 * kTilePairs>([&](auto i)
                                 RENGA_INLINE_LAMBDA { partial[i / 4][i % 4] = Isa::ZeroI(); });
      Unroll<kSubGroups / 2>([&](auto step) RENGA_INLINE_LAMBDA {
        const int group = g + 2 * step;
        Unroll<kTilePairs>([&](auto pair) RENGA_INLINE_LAMBDA {
          constexpr int kFirst = 2 * pair, kSecond = kFirst + 1 < tokens ? kFirst + 1 : kFirst;
          const I activations =
              Isa::LoadPair(a[kFirst].codes + 4 * group, a[kSecond].codes + 4 * group);
          Unroll<4>([&](auto i) RENGA_INLINE_LAMBDA {
            partial[pair][i] =
                Isa::DotPairs(partial[pair][i], w[i / 2].codes[group + i % 2], activations);
          });
        });
      });
      Unroll<2 * tokens>([&](auto i) RENGA_INLINE_LAMBDA {
        constexpr int t = i / 2, p = i % 2;
        const I* halves = partial[t / 2] + 2 * p;
        const I sum =
            t % 2 == 0 ? Isa::EvenLanes(halves[0], halves[1]) : Isa::OddLanes(halves[0], halves[1]);
        if constexpr (kSuper) {
          dots[t][p] = Dot::Finish(dots[t][p], sum, w[p].scales[g / kSubGroups]);
        } else {
          dots[t][p] = Dot::Finish(dots[t][p], sum);
        }
      });
    }
  }
};

}  // namespace renga::kernels::cpu

#endif  // RENGA_WORKER_KERNELS_CPU_MATMUL_QUANTIZED_H_

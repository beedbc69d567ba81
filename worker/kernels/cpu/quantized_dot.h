// How codes are multiplied with activations and the products added up: as bytes, or as words where
// codes are signed and an instruction set multiplies unsigned bytes with signed ones only.
//
// Both kinds of dot product have
//   Block, the activations that go with it; Codes, a group's codes of all rows as it wants them,
//   which Prepare makes of a format's; kOffset, what the codes have on top of their values then;
//   kStarts, whether partial sums begin with Start(block, group);
//   Add(partial, codes, activations): one group's products, FlushSteps() times at most before
//   Finish(acc, partial[, scale]) adds them, times an integer scale, to an int32 sum.
#ifndef RENGA_WORKER_KERNELS_CPU_QUANTIZED_DOT_H_
#define RENGA_WORKER_KERNELS_CPU_QUANTIZED_DOT_H_

#include <cstddef>

#include "worker/kernels/cpu/activations.h"
#include "worker/kernels/cpu/unroll.h"

namespace renga::kernels::cpu {

// 128 is 2^7 and so on.
consteval int Log2(int x) { return x <= 1 ? 0 : 1 + Log2(x / 2); }

// Dot products of codes as bytes. Signed ones get 128 added where the processor multiplies unsigned
// codes only (and adds products up in int32).
template <class Format>
struct ByteDot {
  using Isa = typename Format::Isa;
  using I = typename Isa::I;
  using Block = ByteBlock<Format::kElements>;
  using Codes = I;        // a group's codes of all rows
  using Activations = I;  // a group's activations
  static constexpr bool kAdd128 = Format::kSigned && !Isa::kSignedDot;
  static constexpr int kOffset = kAdd128 ? 128 : Format::kOffset;
  // Whether partial sums begin with a start (activations.h), so that nothing is to be corrected.
  static constexpr bool kStarts =
      !Isa::kTokenPairs && kOffset != 0 &&
      (Format::kElements == 32 || (Format::kScaleElements == 16 && kOffset == kStartFactor16));

  // Steps after which a partial sum could outgrow int16: a step adds `products` times kMaxCode *
  // 127. Where sums have a start, they may wrap around on the way, for all that counts is where
  // they end: there the codes' offset is off, and they are kOffset at most.
  static constexpr int WordSteps(int products) {
    return 32767 / (products * (kStarts ? kOffset : Format::kMaxCode) * 127);
  }
  // Whether int32 sums are emptied while they fit int16, to be multiplied by their scale as words:
  // up to two times a sub-block that is less work than to multiply an int32 once.
  static consteval bool HasWordSums() {
    if constexpr (Isa::kDot32 && Isa::kWordScales && Format::kElements == 256 && !Format::kSigned) {
      return Format::kScaleElements / 4 <= 2 * WordSteps(4);
    } else {
      return false;
    }
  }
  static constexpr bool kWordSums = HasWordSums();
  static constexpr int FlushSteps() {
    if constexpr (kWordSums) {
      return WordSteps(4);
    } else if constexpr (Isa::kDot32) {
      return 64;
    } else {
      return WordSteps(2);
    }
  }
  // What the partial sum that begins with `group` begins with where kStarts.
  RENGA_WORD I Start(const Block& block, int group) {
    if constexpr (kWordSums) {
      // Of the 4 bytes the first two count. The last ones reach into the block's padding.
      static_assert(offsetof(Block, starts16) + sizeof(block.starts16) + 2 <= sizeof(Block));
      const auto* bytes = reinterpret_cast<const std::byte*>(&block);
      return Isa::Broadcast4(bytes + offsetof(Block, starts16) + 2 * (group / 2));
    } else if constexpr (Format::kElements == 256) {
      return Isa::Broadcast4(block.starts16 + group / 4);
    } else if constexpr (Isa::kDot32) {
      return Isa::template ShiftLeft<Log2(kOffset)>(Isa::Broadcast4(&block.start));
    } else {
      return Isa::template ShiftWordsLeft<Log2(kOffset)>(Isa::Broadcast4(&block.start));
    }
  }
  RENGA_WORD Codes Prepare(I raw) {
    if constexpr (kAdd128) return Isa::Xor(raw, Isa::SetByte(-128));
    return raw;
  }
  RENGA_WORD Codes Get(const Codes& stored) { return stored; }
  RENGA_WORD Activations Load(const Block& block, int group) {
    return Isa::Broadcast4(block.codes + 4 * group);
  }
  RENGA_WORD I Add(I partial, const Codes& codes, const Activations& a) {
    return Isa::DotBytes(partial, codes, a);
  }
  RENGA_WORD I Finish(I acc, I partial) { return Isa::AddI(acc, Isa::SumDot(partial)); }
  RENGA_WORD I Finish(I acc, I partial, I scale) {
    if constexpr (kWordSums) return Isa::MulPairs(acc, partial, scale);
    return Isa::ScaleDot(acc, partial, scale);
  }
};

// Dot products of signed codes as words.
template <class Format>
struct WordDot {
  using Isa = typename Format::Isa;
  using I = typename Isa::I;
  using Block = WordBlock<Format::kElements>;
  struct Codes {
    I even, odd;
  };
  using Activations = Codes;
  static constexpr int kOffset = 0;
  static constexpr bool kStarts = false;
  static constexpr bool kWordSums = false;

  static constexpr int FlushSteps() { return 64; }
  RENGA_WORD Codes Prepare(I raw) { return {Isa::EvenWords(raw), Isa::OddWords(raw)}; }
  // Member by member: compilers copy the struct in smaller pieces, through memory.
  RENGA_WORD Codes Get(const Codes& stored) { return {stored.even, stored.odd}; }
  RENGA_WORD Activations Load(const Block& block, int group) {
    return {Isa::Broadcast4(block.codes + 4 * group), Isa::Broadcast4(block.codes + 4 * group + 2)};
  }
  RENGA_WORD I Add(I partial, const Codes& codes, const Activations& a) {
    return Isa::MulBytePairs(Isa::MulBytePairs(partial, codes.even, a.even), codes.odd, a.odd);
  }
  RENGA_WORD I Finish(I acc, I partial) { return Isa::AddI(acc, partial); }
  RENGA_WORD I Finish(I acc, I partial, I scale) { return Isa::MulI(acc, partial, scale); }
};

// The same codes, for many tokens: two sums of words and one product in place of two products, each
// as wide. With words in pairs a, b of activations and c, d of codes,
//   (a + d) * (b + c) = a * c + b * d + a * b + c * d,
// of which the last two are known for each token and each row: S. Winograd, "A New Algorithm for
// Inner Product", 1968. Sums begin with minus those.
template <class Format>
struct CrossDot : WordDot<Format> {
  using Isa = typename Format::Isa;
  using I = typename Isa::I;
  using Codes = typename WordDot<Format>::Codes;

  RENGA_WORD I Add(I partial, const Codes& codes, const Codes& a) {
    return Isa::MulSumPairs(partial, a.even, codes.odd, a.odd, codes.even);
  }
  // `partial` minus what a group's codes add to the sum on their own.
  RENGA_WORD I SubOwn(I partial, const Codes& codes) {
    return Isa::SubI(partial, Isa::MulBytePairs(Isa::ZeroI(), codes.even, codes.odd));
  }
};

}  // namespace renga::kernels::cpu

#endif  // RENGA_WORKER_KERNELS_CPU_QUANTIZED_DOT_H_

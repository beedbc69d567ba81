// How codes are multiplied with activations and the products added up: as bytes, or as words where
// codes are signed and an instruction set multiplies unsigned bytes with signed ones only.
//
// Both kinds of dot product have
//   Block, the activations that go with it; Codes, a group's codes of all rows as it wants them,
//   which Prepare makes of a format's; kOffset, what the codes have on top of their values then;
//   Add(partial, codes, activations): one group's products, FlushSteps() times at most before
//   Finish(acc, partial[, scale]) adds them, times an integer scale, to an int32 sum.
#ifndef RENGA_WORKER_KERNELS_CPU_QUANTIZED_DOT_H_
#define RENGA_WORKER_KERNELS_CPU_QUANTIZED_DOT_H_

#include "worker/kernels/cpu/activations.h"
#include "worker/kernels/cpu/unroll.h"

namespace renga::kernels::cpu {

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

  // Steps after which a partial sum could overflow: int16 takes 2 * kMaxCode * 127 a step.
  static constexpr int FlushSteps() {
    if constexpr (Isa::kDot32) {
      return 64;
    } else {
      return 32767 / (2 * Format::kMaxCode * 127);
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
  RENGA_WORD I Finish(I acc, I partial, I scale) { return Isa::ScaleDot(acc, partial, scale); }
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

}  // namespace renga::kernels::cpu

#endif  // RENGA_WORKER_KERNELS_CPU_QUANTIZED_DOT_H_

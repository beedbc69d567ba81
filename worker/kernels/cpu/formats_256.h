// Weight formats with blocks of 256 numbers, the K types and IQ4_XS. As formats_32.h, but the
// numbers share one float scale per block and have an integer scale for each 16 or 32 of them:
//   number = Scale() * (integer scale * (code - kOffset)) [- Min() * integer min].
// kMinScale and kMaxScale bound the integer scales.
// SubScale<s>() is the scale of sub-block s as Isa::ScaleDot wants it (where kSigned, Isa::MulI);
// Pairs<j>() holds what multiplies the activations' sums, as pairs of int16 for sub-blocks 2 * j
// and 2 * j + 1: the mins where kHasMin, else the scales, for the offset.
#ifndef RENGA_WORKER_KERNELS_CPU_FORMATS_256_H_
#define RENGA_WORKER_KERNELS_CPU_FORMATS_256_H_

#include <cstddef>
#include <cstdint>

#include "worker/kernels/cpu/formats_32.h"
#include "worker/kernels/cpu/unroll.h"

namespace renga::kernels::cpu {

template <class IsaT>
struct Format256 {
  using Isa = IsaT;
  using I = typename Isa::I;
  using F = typename Isa::F;
  static constexpr int kElements = 256;
  static constexpr bool kSigned = false;
  static constexpr bool kHasMin = false;
  static constexpr int kOffset = 0;
  static constexpr bool kWidelyUsed = false;

  explicit Format256(const std::byte* b) : block(b) {}
  [[gnu::always_inline]] I Chunk(int offset, int chunk) const {
    return Isa::Load(block + Isa::kLanes * (offset + 4 * chunk));
  }
  [[gnu::always_inline]] F Half(int offset) const {
    return Isa::LoadHalf(block + Isa::kLanes * offset);
  }
  RENGA_WORD I Low4(I v) { return Isa::And(v, Isa::SetByte(15)); }
  RENGA_WORD I High4(I v) { return Isa::And(Isa::template ShiftRight<4>(v), Isa::SetByte(15)); }
  // Bits 2 * kPair and + 1 of each byte.
  template <int kPair>
  RENGA_WORD I Bits2(I v) {
    return Isa::And(Isa::template ShiftRight<2 * kPair>(v), Isa::SetByte(3));
  }

  const std::byte* block;
};

// Q2_K, Q3_K and Q6_K store, for each half h of the block, numbers 128 * h + 32 * q + l in bits
// 2 * q of byte l. One section is 16 of those bytes, its outputs the four q, each with the scale of
// its own 16 numbers.
template <class Isa>
struct Interleaved256 : Format256<Isa> {
  using Format256<Isa>::Format256;
  static constexpr int kScaleElements = 16;
  static constexpr int kSections = 4;
  static constexpr int kSteps = 4;
  static constexpr int kOutputs = 4;
  static constexpr int Group(int section, int step, int output) {
    return 32 * (section / 2) + 8 * output + 4 * (section % 2) + step;
  }
  // Which chunk of a field of 32 bytes per half.
  static constexpr int HalfChunk(int section, int step) { return 4 * section + step; }
};

// The eight 6-bit scales and mins of Q4_K and Q5_K, 12 bytes per row, as four vectors of bytes.
template <class Isa>
struct SixBitScales {
  using I = typename Isa::I;
  template <class Format>
  [[gnu::always_inline]] SixBitScales(const Format& f, int offset) {
    const I a = f.Chunk(offset, 0), b = f.Chunk(offset, 1), c = f.Chunk(offset, 2);
    const I low6 = Isa::SetByte(63), high2 = Isa::SetByte(0x30);
    scales[0] = Isa::And(a, low6);
    mins[0] = Isa::And(b, low6);
    scales[1] = Isa::Or(Format::Low4(c), Isa::And(Isa::template ShiftRight<2>(a), high2));
    mins[1] = Isa::Or(Format::High4(c), Isa::And(Isa::template ShiftRight<2>(b), high2));
  }
  I scales[2];
  I mins[2];
};

// scales[16] (low nibble scale, high nibble min), 2-bit codes[64], d f16, dmin f16.
template <class Isa>
struct Q2K : Interleaved256<Isa> {
  using typename Format256<Isa>::I;
  using typename Format256<Isa>::F;
  static constexpr int kRowBytes = 84;
  static constexpr int kMinScale = 0;
  static constexpr int kMaxScale = 15;
  static constexpr int kMaxCode = 3;
  static constexpr bool kHasMin = true;

  explicit Q2K(const std::byte* b) : Interleaved256<Isa>(b) {
    for (int i = 0; i < 4; ++i) {
      scales[i] = this->Low4(this->Chunk(0, i));
      mins[i] = this->High4(this->Chunk(0, i));
    }
  }
  template <int section, int step>
  [[gnu::always_inline]] void Codes(I* out) const {
    const I bytes = Isa::Once(this->Chunk(16, this->HalfChunk(section, step)));
    Unroll<4>([&](auto q) RENGA_INLINE_LAMBDA { out[q] = this->template Bits2<q>(bytes); });
  }
  template <int s>
  [[gnu::always_inline]] I SubScale() const {
    return Isa::template DotScaleU<s % 4>(scales[s / 4]);
  }
  template <int j>
  [[gnu::always_inline]] I Pairs() const {
    return Isa::template PairU<j % 2>(mins[j / 2]);
  }
  [[gnu::always_inline]] F Scale() const { return this->Half(80); }
  [[gnu::always_inline]] F Min() const { return this->Half(82); }

  I scales[4];
  I mins[4];
};

// 6-bit scales[12] with 32 added, 2-bit codes and third bits[96], d f16; offset 4. Packed in the
// order of use (packed_matrix.cc): for each section and each two steps a word of 4 bytes with third
// bits, then the steps' words of codes. Bit 4 * (step % 2) + q of a byte is output q's.
template <class Isa>
struct Q3K : Interleaved256<Isa> {
  using typename Format256<Isa>::I;
  using typename Format256<Isa>::F;
  static constexpr int kRowBytes = 110;
  static constexpr int kMinScale = -32;
  static constexpr int kMaxScale = 31;
  static constexpr int kMaxCode = 7;
  static constexpr int kOffset = 4;

  explicit Q3K(const std::byte* b) : Interleaved256<Isa>(b) {
    const I low[2] = {this->Chunk(0, 0), this->Chunk(0, 1)};
    const I high = this->Chunk(0, 2);
    Unroll<4>([&](auto i) RENGA_INLINE_LAMBDA {
      const I nibbles = i < 2 ? this->Low4(low[i % 2]) : this->High4(low[i % 2]);
      const I top = Isa::template ShiftLeft<4>(this->template Bits2<i>(high));
      scales[i] = Isa::SubByte(Isa::Or(nibbles, top), Isa::SetByte(32));
    });
  }
  template <int section, int step>
  [[gnu::always_inline]] void Codes(I* out) const {
    constexpr int kPairOfSteps = 3 * (2 * section + step / 2);
    const I third = Isa::Once(this->Chunk(12, kPairOfSteps));
    const I bytes = Isa::Once(this->Chunk(12, kPairOfSteps + 1 + step % 2));
    Unroll<4>([&](auto q) RENGA_INLINE_LAMBDA {
      // The third bit as bit 2.
      constexpr int kBit = 4 * (step % 2) + q;
      I bit;
      if constexpr (kBit < 2) {
        bit = Isa::template ShiftLeft<2 - kBit>(third);
      } else {
        bit = Isa::template ShiftRight<kBit - 2>(third);
      }
      out[q] = Isa::OrMasked(this->template Bits2<q>(bytes), bit, Isa::SetByte(4));
    });
  }
  template <int s>
  [[gnu::always_inline]] I SubScale() const {
    return Isa::template DotScaleS<s % 4>(scales[s / 4]);
  }
  template <int j>
  [[gnu::always_inline]] I Pairs() const {
    return Isa::template PairS<j % 2>(scales[j / 2]);
  }
  [[gnu::always_inline]] F Scale() const { return this->Half(108); }

  I scales[4];
};

// d f16, dmin f16, 6-bit scales and mins[12], nibbles[128]: 32 bytes hold 64 numbers, low nibbles
// first.
template <class Isa>
struct Q4K : Format256<Isa> {
  using typename Format256<Isa>::I;
  using typename Format256<Isa>::F;
  static constexpr int kRowBytes = 144;
  static constexpr bool kWidelyUsed = true;
  static constexpr int kMinScale = 0;
  static constexpr int kMaxScale = 63;
  static constexpr int kScaleElements = 32;
  static constexpr int kMaxCode = 15;
  static constexpr bool kHasMin = true;
  static constexpr int kSections = 4;
  static constexpr int kSteps = 8;
  static constexpr int kOutputs = 2;
  static constexpr int Group(int section, int step, int output) {
    return 16 * section + 8 * output + step;
  }

  explicit Q4K(const std::byte* b) : Format256<Isa>(b), sub(*this, 4) {}
  template <int section, int step>
  [[gnu::always_inline]] void Codes(I* out) const {
    const I bytes = Isa::Once(this->Chunk(16, 8 * section + step));
    out[0] = this->Low4(bytes);
    out[1] = this->High4(bytes);
  }
  template <int s>
  [[gnu::always_inline]] I SubScale() const {
    return Isa::template DotScaleU<s % 4>(sub.scales[s / 4]);
  }
  template <int j>
  [[gnu::always_inline]] I Pairs() const {
    return Isa::template PairU<j % 2>(sub.mins[j / 2]);
  }
  [[gnu::always_inline]] F Scale() const { return this->Half(0); }
  [[gnu::always_inline]] F Min() const { return this->Half(2); }

  const SixBitScales<Isa> sub;
};

// As Q4_K with a fifth bit of each number, packed in the order of use (packed_matrix.cc): before
// the 32 bytes of a section's nibbles two words of 4 bytes, one for each four steps s. Bits 2 * (s
// % 4) and + 1 of the word's byte b are those of the low and the high nibble of the step's byte b.
template <class Isa>
struct Q5K : Format256<Isa> {
  using typename Format256<Isa>::I;
  using typename Format256<Isa>::F;
  static constexpr int kRowBytes = 176;
  static constexpr bool kWidelyUsed = true;
  static constexpr int kMinScale = 0;
  static constexpr int kMaxScale = 63;
  static constexpr int kScaleElements = 32;
  static constexpr int kMaxCode = 31;
  static constexpr bool kHasMin = true;
  static constexpr int kSections = 4;
  static constexpr int kSteps = 8;
  static constexpr int kOutputs = 2;
  static constexpr int Group(int section, int step, int output) {
    return 16 * section + 8 * output + step;
  }

  explicit Q5K(const std::byte* b) : Format256<Isa>(b), sub(*this, 4) {}
  template <int section, int step>
  [[gnu::always_inline]] void Codes(I* out) const {
    constexpr int kWords = 10 * section;
    const I bytes = Isa::Once(this->Chunk(16, kWords + 2 + step));
    const I fifth = Isa::Once(this->Chunk(16, kWords + step / 4)), mask = Isa::SetByte(16);
    out[0] = Isa::OrMasked(this->Low4(bytes), Fifth<2 * (step % 4)>(fifth), mask);
    out[1] = Isa::OrMasked(this->High4(bytes), Fifth<2 * (step % 4) + 1>(fifth), mask);
  }
  template <int s>
  [[gnu::always_inline]] I SubScale() const {
    return Isa::template DotScaleU<s % 4>(sub.scales[s / 4]);
  }
  template <int j>
  [[gnu::always_inline]] I Pairs() const {
    return Isa::template PairU<j % 2>(sub.mins[j / 2]);
  }
  [[gnu::always_inline]] F Scale() const { return this->Half(0); }
  [[gnu::always_inline]] F Min() const { return this->Half(2); }

  const SixBitScales<Isa> sub;

 private:
  // Bit kBit of each byte as bit 4, beside others.
  template <int kBit>
  RENGA_WORD I Fifth(I bits) {
    if constexpr (kBit < 4) {
      return Isa::template ShiftLeft<4 - kBit>(bits);
    } else {
      return Isa::template ShiftRight<kBit - 4>(bits);
    }
  }
};

// scales int8[16], codes[192] of 6 bits, d f16; offset 32. Packed in the order of use
// (packed_matrix.cc): for each section and step three words of 4 bytes. The low 6 bits of word q's
// bytes are the codes of output q, the high 2 bits are bits 2 * q and + 1 of those of output 3.
template <class Isa>
struct Q6K : Interleaved256<Isa> {
  using typename Format256<Isa>::I;
  using typename Format256<Isa>::F;
  static constexpr int kRowBytes = 210;
  static constexpr bool kWidelyUsed = true;
  static constexpr int kMinScale = -128;
  static constexpr int kMaxScale = 127;
  static constexpr int kMaxCode = 63;
  static constexpr int kOffset = 32;

  explicit Q6K(const std::byte* b) : Interleaved256<Isa>(b) {}
  template <int section, int step>
  [[gnu::always_inline]] void Codes(I* out) const {
    constexpr int kChunk = 3 * (4 * section + step);
    const I words[3] = {Isa::Once(this->Chunk(16, kChunk)), Isa::Once(this->Chunk(16, kChunk + 1)),
                        Isa::Once(this->Chunk(16, kChunk + 2))};
    Unroll<3>([&](auto q) RENGA_INLINE_LAMBDA { out[q] = Isa::And(words[q], Isa::SetByte(0x3f)); });
    const I last = Isa::And(Isa::template ShiftRight<6>(words[0]), Isa::SetByte(0x03));
    out[3] = Isa::OrMasked(
        Isa::OrMasked(last, Isa::template ShiftRight<4>(words[1]), Isa::SetByte(0x0c)),
        Isa::template ShiftRight<2>(words[2]), Isa::SetByte(0x30));
  }
  template <int s>
  [[gnu::always_inline]] I SubScale() const {
    return Isa::template DotScaleS<s % 4>(this->Chunk(0, s / 4));
  }
  template <int j>
  [[gnu::always_inline]] I Pairs() const {
    return Isa::template PairS<j % 2>(this->Chunk(0, j / 2));
  }
  [[gnu::always_inline]] F Scale() const { return this->Half(208); }
};

// d f16, high 2 bits of the scales u16, low 4 bits[4], nibbles[128] that index kIq4Codes: 16 bytes
// hold 32 numbers. Scales have 32 added.
template <class Isa>
struct Iq4Xs : Format256<Isa> {
  using typename Format256<Isa>::I;
  using typename Format256<Isa>::F;
  static constexpr int kRowBytes = 136;
  static constexpr int kMinScale = -32;
  static constexpr int kMaxScale = 31;
  static constexpr int kScaleElements = 32;
  static constexpr bool kSigned = true;
  static constexpr int kSections = 8;
  static constexpr int kSteps = 4;
  static constexpr int kOutputs = 2;
  static constexpr int Group(int section, int step, int output) {
    return 8 * section + 4 * output + step;
  }

  explicit Iq4Xs(const std::byte* b) : Format256<Isa>(b), table(Isa::LoadTable(kIq4Codes)) {
    const I low = this->Chunk(4, 0);
    // 16 bits spread out: nibble b to byte b, so that byte b has bits for sub-blocks 2b and 2b + 1.
    I high = Isa::WidenU16(b + Isa::kLanes * 2);
    high = Isa::And(Isa::Or(high, Isa::template ShiftLeft<8>(high)), Isa::SetI(0x00ff00ff));
    high = Isa::And(Isa::Or(high, Isa::template ShiftLeft<4>(high)), Isa::SetByte(15));
    const I mask = Isa::SetByte(0x30), bias = Isa::SetByte(32);
    even = Isa::SubByte(Isa::Or(this->Low4(low), Isa::And(Isa::template ShiftLeft<4>(high), mask)),
                        bias);
    odd = Isa::SubByte(Isa::Or(this->High4(low), Isa::And(Isa::template ShiftLeft<2>(high), mask)),
                       bias);
  }
  template <int section, int step>
  [[gnu::always_inline]] void Codes(I* out) const {
    const I bytes = Isa::Once(this->Chunk(8, 4 * section + step));
    out[0] = Isa::Lookup(table, this->Low4(bytes));
    out[1] = Isa::Lookup(table, this->High4(bytes));
  }
  template <int s>
  [[gnu::always_inline]] I SubScale() const {
    const I bytes = s % 2 == 0 ? even : odd;
    return Isa::template ScaleS<s / 2>(bytes);
  }
  template <int j>
  [[gnu::always_inline]] I Pairs() const {
    return Isa::Or(Isa::And(Isa::template ScaleS<j>(even), Isa::SetI(0xffff)),
                   Isa::template ShiftLeft<16>(Isa::template ScaleS<j>(odd)));
  }
  [[gnu::always_inline]] F Scale() const { return this->Half(0); }

  const I table;
  I even;
  I odd;
};

}  // namespace renga::kernels::cpu

#endif  // RENGA_WORKER_KERNELS_CPU_FORMATS_256_H_

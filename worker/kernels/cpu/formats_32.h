// Weight formats with blocks of 32 numbers: how a panel block's bytes become codes and scales.
//
// A panel is Isa::kLanes rows, a panel block one block of each, its fields interleaved (see
// packed_matrix.h): a field at byte o of a row's block is at kLanes * o here, in chunks of 2 bytes
// (scales) or 4 (codes), one chunk per row. So one vector holds, in lane r, four neighbouring
// codes ("a group") of row r.
//
// Every format type has, beside its constants,
//   Codes<section>(step, out): kOutputs vectors of codes (bytes); output o of step s is the group
//     Group(section, s, o), that is, numbers 4 * Group .. + 3 of the block. kSections * kSteps *
//     kOutputs groups are the whole block, and one output's groups of a section share a scale.
//   Scale() and, where kHasMin, Min(): number = scale * (code - kOffset) + min.
#ifndef RENGA_WORKER_KERNELS_CPU_FORMATS_32_H_
#define RENGA_WORKER_KERNELS_CPU_FORMATS_32_H_

#include <cstddef>
#include <cstdint>

#include "worker/kernels/cpu/unroll.h"

namespace renga::kernels::cpu {

// What all formats of 32 have in common unless they say otherwise.
template <class IsaT>
struct Format32 {
  using Isa = IsaT;
  using I = typename Isa::I;
  using F = typename Isa::F;
  static constexpr int kElements = 32;
  static constexpr int kScaleElements = 32;  // numbers that share a scale
  static constexpr bool kSigned = false;     // codes are int8, else uint8
  static constexpr bool kHasMin = false;
  static constexpr int kOffset = 0;
  static constexpr int kSections = 1;
  static constexpr bool kWidelyUsed = true;  // worth kernels of its own for two to eight tokens
  static constexpr int kSteps = 4;
  static constexpr int kOutputs = 2;
  // A byte's low and high nibble are 16 numbers apart.
  static constexpr int Group(int section, int step, int output) { return step + 4 * output; }

  explicit Format32(const std::byte* b) : block(b) {}
  // The field at byte `offset` of a row's block, its chunk number `chunk` of 4 bytes.
  [[gnu::always_inline]] I Chunk(int offset, int chunk) const {
    return Isa::Load(block + Isa::kLanes * (offset + 4 * chunk));
  }
  [[gnu::always_inline]] F Half(int offset) const {
    return Isa::LoadHalf(block + Isa::kLanes * offset);
  }
  [[gnu::always_inline]] void Nibbles(int offset, int chunk, I* out) const {
    const I bytes = Isa::Once(Chunk(offset, chunk));
    out[0] = Isa::And(bytes, Isa::SetByte(15));
    out[1] = Isa::And(Isa::template ShiftRight<4>(bytes), Isa::SetByte(15));
  }
  // Ors bit `step` (and step + 4) of each byte of the field at `offset` in as bit 4.
  template <int step>
  [[gnu::always_inline]] void FifthBits(int offset, I* out) const {
    const I bits = Isa::Once(Chunk(offset, 0));
    const I mask = Isa::SetByte(16);
    out[0] = Isa::OrMasked(out[0], Isa::template ShiftLeft<4 - step>(bits), mask);
    out[1] = Isa::OrMasked(out[1], Isa::template ShiftRight<step>(bits), mask);
  }

  const std::byte* block;
};

// d f16, codes int8[32].
template <class Isa>
struct Q8_0 : Format32<Isa> {
  using Format32<Isa>::Format32;
  using typename Format32<Isa>::I;
  using typename Format32<Isa>::F;
  static constexpr int kRowBytes = 34;
  static constexpr bool kSigned = true;
  static constexpr int kSteps = 8;
  static constexpr int kOutputs = 1;
  static constexpr int Group(int section, int step, int output) { return step; }

  template <int section, int step>
  [[gnu::always_inline]] void Codes(I* out) const {
    out[0] = this->Chunk(2, step);
  }
  [[gnu::always_inline]] F Scale() const { return this->Half(0); }
};

// d f16, nibbles[16]; number = d * (code - 8).
template <class Isa>
struct Q4_0 : Format32<Isa> {
  using Format32<Isa>::Format32;
  using typename Format32<Isa>::I;
  using typename Format32<Isa>::F;
  static constexpr int kRowBytes = 18;
  static constexpr int kMaxCode = 15;
  static constexpr int kOffset = 8;

  template <int section, int step>
  [[gnu::always_inline]] void Codes(I* out) const {
    this->Nibbles(2, step, out);
  }
  [[gnu::always_inline]] F Scale() const { return this->Half(0); }
};

// d f16, m f16, nibbles[16]; number = d * code + m.
template <class Isa>
struct Q4_1 : Format32<Isa> {
  using Format32<Isa>::Format32;
  using typename Format32<Isa>::I;
  using typename Format32<Isa>::F;
  static constexpr int kRowBytes = 20;
  static constexpr int kMaxCode = 15;
  static constexpr bool kHasMin = true;

  template <int section, int step>
  [[gnu::always_inline]] void Codes(I* out) const {
    this->Nibbles(4, step, out);
  }
  [[gnu::always_inline]] F Scale() const { return this->Half(0); }
  [[gnu::always_inline]] F Min() const { return this->Half(2); }
};

// d f16, fifth bits[4] (rearranged when packed: bit g of byte b is number 4 * g + b), nibbles[16];
// number = d * (code - 16).
template <class Isa>
struct Q5_0 : Format32<Isa> {
  using Format32<Isa>::Format32;
  using typename Format32<Isa>::I;
  using typename Format32<Isa>::F;
  static constexpr int kRowBytes = 22;
  static constexpr int kMaxCode = 31;
  static constexpr int kOffset = 16;

  template <int section, int step>
  [[gnu::always_inline]] void Codes(I* out) const {
    this->Nibbles(6, step, out);
    this->template FifthBits<step>(2, out);
  }
  [[gnu::always_inline]] F Scale() const { return this->Half(0); }
};

// d f16, m f16, fifth bits[4] as in Q5_0, nibbles[16]; number = d * code + m.
template <class Isa>
struct Q5_1 : Format32<Isa> {
  using Format32<Isa>::Format32;
  using typename Format32<Isa>::I;
  using typename Format32<Isa>::F;
  static constexpr int kRowBytes = 24;
  static constexpr int kMaxCode = 31;
  static constexpr bool kHasMin = true;

  template <int section, int step>
  [[gnu::always_inline]] void Codes(I* out) const {
    this->Nibbles(8, step, out);
    this->template FifthBits<step>(4, out);
  }
  [[gnu::always_inline]] F Scale() const { return this->Half(0); }
  [[gnu::always_inline]] F Min() const { return this->Half(2); }
};

// d f16, third bits[4] (bit g of byte b is number 4 * g + b), pairs[8] (group g is in chunk g % 2
// at bit 2 * (g / 2)); number = d * (code - 4).
template <class Isa>
struct R3 : Format32<Isa> {
  using Format32<Isa>::Format32;
  using typename Format32<Isa>::I;
  using typename Format32<Isa>::F;
  static constexpr int kRowBytes = 14;
  static constexpr int kMaxCode = 7;
  static constexpr int kOffset = 4;
  static constexpr bool kWidelyUsed = false;
  static constexpr int kSteps = 2;
  static constexpr int kOutputs = 4;
  static constexpr int Group(int section, int step, int output) { return step + 2 * output; }

  template <int section, int step>
  [[gnu::always_inline]] void Codes(I* out) const {
    const I pairs = this->Chunk(6, step);
    const I bits = this->Chunk(2, 0);
    out[0] = Code(pairs, Isa::template ShiftLeft<2 - step>(bits));
    if constexpr (step == 0) {
      out[1] = Code(Isa::template ShiftRight<2>(pairs), bits);
    } else {
      out[1] = Code(Isa::template ShiftRight<2>(pairs), Isa::template ShiftRight<1>(bits));
    }
    out[2] = Code(Isa::template ShiftRight<4>(pairs), Isa::template ShiftRight<2 + step>(bits));
    out[3] = Code(Isa::template ShiftRight<6>(pairs), Isa::template ShiftRight<4 + step>(bits));
  }
  [[gnu::always_inline]] F Scale() const { return this->Half(0); }

 private:
  // Two low bits, and the third one in its place.
  [[gnu::always_inline]] static I Code(I low, I third) {
    return Isa::OrMasked(Isa::And(low, Isa::SetByte(3)), third, Isa::SetByte(4));
  }
};

// The numbers that the nibbles of IQ4_NL and IQ4_XS stand for.
alignas(16) inline constexpr int8_t kIq4Codes[16] = {-127, -104, -83, -65, -49, -35, -22, -10,
                                                     1,    13,   25,  38,  53,  69,  89,  113};

// d f16, nibbles[16] that index kIq4Codes.
template <class Isa>
struct Iq4Nl : Format32<Isa> {
  using typename Format32<Isa>::I;
  using typename Format32<Isa>::F;
  static constexpr int kRowBytes = 18;
  static constexpr bool kSigned = true;

  explicit Iq4Nl(const std::byte* b) : Format32<Isa>(b), table(Isa::LoadTable(kIq4Codes)) {}
  template <int section, int step>
  [[gnu::always_inline]] void Codes(I* out) const {
    this->Nibbles(2, step, out);
    out[0] = Isa::Lookup(table, out[0]);
    out[1] = Isa::Lookup(table, out[1]);
  }
  [[gnu::always_inline]] F Scale() const { return this->Half(0); }

  const I table;
};

}  // namespace renga::kernels::cpu

#endif  // RENGA_WORKER_KERNELS_CPU_FORMATS_32_H_

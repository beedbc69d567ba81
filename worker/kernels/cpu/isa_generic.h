// The vector words that all kernels of the CPU backend are written in, in plain C++ (compiler
// vectors of any width). This is the portable path, and the definition of the words: the other
// isa_*.h say the same with instructions.
//
// A word vector has kLanes lanes of 32 bits: F as floats, I as int32, pairs of int16 or groups of
// four bytes. Lanes are matrix rows in the matrix kernels and neighbouring numbers elsewhere.
//
// Everything here is a member of a type named by its instruction set, so that the linker cannot
// merge functions that were compiled for different processors. Kernels therefore call nothing of
// the standard library that might be emitted out of line.
#ifndef RENGA_WORKER_KERNELS_CPU_ISA_GENERIC_H_
#define RENGA_WORKER_KERNELS_CPU_ISA_GENERIC_H_

#include <cstddef>
#include <cstdint>
#include <cstring>

#include "worker/kernels/cpu/unroll.h"

namespace renga::kernels::cpu {

// The compiler's vector of `bytes` bytes.
template <class T, int bytes>
struct VectorOf {
  typedef T Type __attribute__((vector_size(bytes)));
};

// `dot32`: how a dot product of bytes adds up, as processors do. False: pairs of products into
// int16, which the kernels must empty in time (SSSE3, AVX2). True: four products into int32
// (VNNI); the portable path never uses that, tests do, to run the AVX-512 kernels' algorithm on
// any machine.
// `Tag` makes the types of different translation units different.
template <int lanes, bool dot32, class Tag>
struct Generic {
  static constexpr int kLanes = lanes;
  static constexpr bool kDot32 = dot32;
  // Signed weights: true, as int16 against int16 activations (EvenWords, OddWords, MulPairs);
  // false, as bytes, which DotBytes must be able to add up: with 128 added, unless kSignedDot.
  static constexpr bool kWideSigned = !dot32;
  // Whether DotBytes takes signed codes. It need not take any above 127 then: no format has them.
  static constexpr bool kSignedDot = false;
  // Where kDot32: whether MulPairs is one instruction, so that partial sums which fit int16 are
  // better multiplied by their scales with it than with ScaleDot. DotScaleS and DotScaleU leave the
  // upper word of a lane empty then.
  static constexpr bool kWordScales = dot32;
  // Whether many tokens are taken two at a time, by words that isa_neon_i8mm.h defines.
  static constexpr bool kTokenPairs = false;
  // Tokens that share a decoded weight in registers.
  static constexpr int kTileTokens = 4;
  // Whether two to eight tokens share codes as they are read, undecoded: where registers are many.
  static constexpr bool kSharesCodes = lanes == 16;
  // For one token: places of a matrix that are read in turn, how far ahead memory is asked for in
  // each (both also for formats of 256 numbers), and as of __builtin_prefetch into which cache;
  // whether the compiler is kept to one step of a product at a time. Left alone it loads the codes
  // of many steps first and puts them aside in memory, where registers are 64 bytes.
  static constexpr int kStreams = 4;
  static constexpr int kStreams256 = 4;
  static constexpr int kPrefetchBytes = 1024;
  static constexpr int kPrefetchBytes256 = 2048;
  static constexpr int kPrefetchLevel = 3;
  static constexpr bool kStepByStep = false;
  // Heads that share a key, or a value, in registers.
  static constexpr int kAttentionHeads = 2;

  using F = typename VectorOf<float, 4 * lanes>::Type;
  using I = typename VectorOf<int32_t, 4 * lanes>::Type;

  // Integers. Loads and stores need no alignment.
  RENGA_WORD I Load(const void* p) { return LoadAs<I>(p); }
  // v, which compilers otherwise read from memory again for each use.
  RENGA_WORD I Once(I v) { return v; }
  RENGA_WORD void Store(void* p, I v) { std::memcpy(p, &v, sizeof(v)); }
  RENGA_WORD I ZeroI() { return I{}; }
  RENGA_WORD I SetByte(int8_t x) { return reinterpret_cast<I>(Bytes{} + x); }
  RENGA_WORD I SetI(int32_t x) { return I{} + x; }
  // The same four bytes in every lane.
  RENGA_WORD I Broadcast4(const void* p) { return SetI(LoadAs<int32_t>(p)); }
  RENGA_WORD I And(I a, I b) { return a & b; }
  RENGA_WORD I Or(I a, I b) { return a | b; }
  // a | (b & mask), where processors have it in one.
  RENGA_WORD I OrMasked(I a, I b, I mask) { return Or(a, And(b, mask)); }
  RENGA_WORD I Xor(I a, I b) { return a ^ b; }
  RENGA_WORD I SubByte(I a, I b) {
    return reinterpret_cast<I>(reinterpret_cast<UBytes>(a) - reinterpret_cast<UBytes>(b));
  }
  RENGA_WORD I AddI(I a, I b) { return a + b; }
  RENGA_WORD I SubI(I a, I b) { return a - b; }
  // Of the 32-bit lanes, zeros coming in.
  template <int kBits>
  RENGA_WORD I ShiftLeft(I a) {
    return reinterpret_cast<I>(reinterpret_cast<U>(a) << kBits);
  }
  template <int kBits>
  RENGA_WORD I ShiftRight(I a) {
    return reinterpret_cast<I>(reinterpret_cast<U>(a) >> kBits);
  }
  // Of the 16-bit halves of lanes.
  template <int kBits>
  RENGA_WORD I ShiftWordsLeft(I a) {
    return reinterpret_cast<I>(reinterpret_cast<UWords>(a) << kBits);
  }
  // kLanes uint16 to int32.
  RENGA_WORD I WidenU16(const void* p) { return __builtin_convertvector(LoadAs<HalfU16>(p), I); }
  // kLanes int8 to int32.
  RENGA_WORD I WidenS8(const void* p) { return __builtin_convertvector(LoadAs<QuarterS8>(p), I); }
  // A table of 16 bytes, and its entries for byte indices 0..15.
  RENGA_WORD I LoadTable(const int8_t* table) {
    I v;
    for (int i = 0; i < lanes; i += 4) std::memcpy(reinterpret_cast<char*>(&v) + 4 * i, table, 16);
    return v;
  }
  RENGA_WORD I Lookup(I table, I index) {
    I v;
    const auto* t = reinterpret_cast<const int8_t*>(&table);
    const auto* i = reinterpret_cast<const int8_t*>(&index);
    auto* out = reinterpret_cast<int8_t*>(&v);
    for (int b = 0; b < 4 * lanes; ++b) out[b] = t[i[b]];
    return v;
  }

  // Dot products. A partial sum collects products of codes (unsigned, or signed where kSignedDot)
  // and signed activations, and means something only to SumDot and ScaleDot.
  RENGA_WORD I DotBytes(I partial, I codes, I activations) {
    const I even = reinterpret_cast<I>(LowBytesU(codes) * LowBytesS(activations));
    const I odd = reinterpret_cast<I>(HighBytesU(codes) * HighBytesS(activations));
    if constexpr (dot32) {
      return partial + LowWords(even) + HighWords(even) + LowWords(odd) + HighWords(odd);
    } else {
      return reinterpret_cast<I>(reinterpret_cast<UWords>(partial) +
                                 reinterpret_cast<UWords>(even) + reinterpret_cast<UWords>(odd));
    }
  }
  // The partial sums as int32.
  RENGA_WORD I SumDot(I partial) {
    if constexpr (dot32) return partial;
    return LowWords(partial) + HighWords(partial);
  }
  // acc + partial * scale, scale from DotScaleU or DotScaleS.
  RENGA_WORD I ScaleDot(I acc, I partial, I scale) {
    return acc + SumDot(partial) * LowWords(scale);
  }
  // acc + a.low * b.low + a.high * b.high: pairs of int16.
  RENGA_WORD I MulPairs(I acc, I a, I b) {
    return acc + LowWords(a) * LowWords(b) + HighWords(a) * HighWords(b);
  }
  // The same where a and b are words made of bytes, not both -128.
  RENGA_WORD I MulBytePairs(I acc, I a, I b) {
    const I products = reinterpret_cast<I>(reinterpret_cast<Words>(a) * reinterpret_cast<Words>(b));
    return acc + LowWords(products) + HighWords(products);
  }
  // acc + (a + b) * (c + d), of pairs of int16 that are bytes.
  RENGA_WORD I MulSumPairs(I acc, I a, I b, I c, I d) {
    return MulPairs(acc, AddWords(a, b), AddWords(c, d));
  }
  // The low 16 bits of the products of int16.
  RENGA_WORD I MulWords(I a, I b) {
    return reinterpret_cast<I>(reinterpret_cast<Words>(a) * reinterpret_cast<Words>(b));
  }
  // acc + a * b: int32.
  RENGA_WORD I MulI(I acc, I a, I b) { return acc + a * b; }
  // Bytes 0 and 2 (1 and 3) of each lane, sign-extended to a pair of int16.
  RENGA_WORD I EvenWords(I v) { return reinterpret_cast<I>(LowBytesS(v)); }
  RENGA_WORD I OddWords(I v) { return reinterpret_cast<I>(HighBytesS(v)); }
  // Byte kByte of each lane as ScaleDot, or MulPairs where kWordScales, wants it; unsigned, signed.
  template <int kByte>
  RENGA_WORD I DotScaleU(I bytes) {
    const I x = And(ShiftRight<8 * kByte>(bytes), SetI(0xff));
    return kWordScales ? x : Or(x, ShiftLeft<16>(x));
  }
  template <int kByte>
  RENGA_WORD I DotScaleS(I bytes) {
    const I x = And(ScaleS<kByte>(bytes), SetI(0xffff));
    return kWordScales ? x : Or(x, ShiftLeft<16>(x));
  }
  // Byte kByte as int32, signed.
  template <int kByte>
  RENGA_WORD I ScaleS(I bytes) {
    return ShiftLeft<24 - 8 * kByte>(bytes) >> 24;
  }
  // Bytes 2 * kPair and 2 * kPair + 1 as a pair of int16; unsigned, signed.
  template <int kPair>
  RENGA_WORD I PairU(I bytes) {
    const I x = ShiftRight<16 * kPair>(bytes);
    return Or(And(x, SetI(0xff)), And(ShiftLeft<8>(x), SetI(0xff0000)));
  }
  template <int kPair>
  RENGA_WORD I PairS(I bytes) {
    return Or(And(ScaleS<2 * kPair>(bytes), SetI(0xffff)),
              ShiftLeft<16>(ScaleS<2 * kPair + 1>(bytes)));
  }

  // Floats.
  RENGA_WORD F ZeroF() { return F{}; }
  RENGA_WORD F SetF(float x) { return F{} + x; }
  RENGA_WORD F LoadF(const float* p) { return LoadAs<F>(p); }
  RENGA_WORD void StoreF(float* p, F v) { std::memcpy(p, &v, sizeof(v)); }
  RENGA_WORD F AddF(F a, F b) { return a + b; }
  RENGA_WORD F SubF(F a, F b) { return a - b; }
  RENGA_WORD F MulF(F a, F b) { return a * b; }
  RENGA_WORD F DivF(F a, F b) { return a / b; }
  RENGA_WORD F MinF(F a, F b) { return a < b ? a : b; }
  RENGA_WORD F MaxF(F a, F b) { return a > b ? a : b; }
  RENGA_WORD F AbsF(F a) { return AsF(reinterpret_cast<I>(a) & 0x7fffffff); }
  // a * b + c, with one rounding or two as the path's hardware does.
  RENGA_WORD F MulAddF(F a, F b, F c) { return a * b + c; }
  RENGA_WORD F ToF(I v) { return __builtin_convertvector(v, F); }
  // v where x >= limit, else 0.
  RENGA_WORD F KeepWhereAtLeast(F v, F x, F limit) { return x >= limit ? v : F{}; }
  // To the nearest int32, ties to even, for |v| < 2^22; adding and subtracting 1.5 * 2^23 rounds.
  RENGA_WORD I Round(F v) {
    const F magic = SetF(12582912.0f);
    return reinterpret_cast<I>(v + magic) - reinterpret_cast<I>(magic);
  }
  RENGA_WORD F AsF(I v) { return reinterpret_cast<F>(v); }
  // kLanes IEEE halves, all values exact: the bits in float's place, times 2^112.
  RENGA_WORD F LoadHalf(const void* p) {
    const I bits = WidenU16(p);
    const I magnitude = bits & 0x7fff;
    const F scaled = AsF(ShiftLeft<13>(magnitude)) * AsF(SetI(0x77800000));
    const I infinite_or_nan = (magnitude > 0x7bff) & 0x7f800000;
    return AsF(reinterpret_cast<I>(scaled) | infinite_or_nan | ShiftLeft<16>(bits & 0x8000));
  }
  // To the nearest half, ties to even, beyond 65504 infinity.
  RENGA_WORD void StoreHalf(void* p, F v) {
    const I magnitude = reinterpret_cast<I>(v) & 0x7fffffff;
    const I normal = (magnitude - (112 << 23) + 0xfff + (ShiftRight<13>(magnitude) & 1)) >> 13;
    // Subnormal halves count in the units of floats in [0.5, 1): the addition rounds.
    const I tiny = reinterpret_cast<I>(AsF(magnitude) + 0.5f) - 0x3f000000;
    const I nan = 0x7e00 | (ShiftRight<13>(magnitude) & 0x3ff);
    I half = magnitude < 0x38800000 ? tiny : normal;
    half = magnitude >= 0x477ff000 ? SetI(0x7c00) : half;
    half = magnitude > 0x7f800000 ? nan : half;
    half |= ShiftRight<16>(reinterpret_cast<I>(v)) & 0x8000;
    const HalfU16 out = __builtin_convertvector(half, HalfU16);
    std::memcpy(p, &out, sizeof(out));
  }
  // Sum and largest of the lanes, halving the vector each time.
  RENGA_WORD float SumF(F v) {
    for (int half = lanes / 2; half > 0; half /= 2) {
      for (int i = 0; i < half; ++i) v[i] += v[i + half];
    }
    return v[0];
  }
  RENGA_WORD float LargestF(F v) {
    float largest = v[0];
    for (int i = 1; i < lanes; ++i) largest = v[i] > largest ? v[i] : largest;
    return largest;
  }
  // The lanes, each within int8, as kLanes bytes.
  RENGA_WORD void StoreBytes(int8_t* p, I v) {
    for (int i = 0; i < lanes; ++i) p[i] = static_cast<int8_t>(v[i]);
  }

 private:
  using U = typename VectorOf<uint32_t, 4 * lanes>::Type;
  using Words = typename VectorOf<int16_t, 4 * lanes>::Type;
  using UWords = typename VectorOf<uint16_t, 4 * lanes>::Type;
  using Bytes = typename VectorOf<int8_t, 4 * lanes>::Type;
  using UBytes = typename VectorOf<uint8_t, 4 * lanes>::Type;
  using HalfU16 = typename VectorOf<uint16_t, 2 * lanes>::Type;

  using QuarterS8 = typename VectorOf<int8_t, lanes>::Type;

  template <typename T>
  RENGA_WORD T LoadAs(const void* p) {
    T v;
    std::memcpy(&v, p, sizeof(v));
    return v;
  }
  // The even and odd bytes of a vector as int16.
  RENGA_WORD Words LowBytesU(I v) { return reinterpret_cast<Words>(v & 0x00ff00ff); }
  RENGA_WORD Words HighBytesU(I v) {
    return reinterpret_cast<Words>(reinterpret_cast<UWords>(v) >> 8);
  }
  RENGA_WORD Words LowBytesS(I v) {
    return reinterpret_cast<Words>(reinterpret_cast<UWords>(v) << 8) >> 8;
  }
  RENGA_WORD Words HighBytesS(I v) { return reinterpret_cast<Words>(v) >> 8; }
  RENGA_WORD I AddWords(I a, I b) {
    return reinterpret_cast<I>(reinterpret_cast<Words>(a) + reinterpret_cast<Words>(b));
  }
  // The low and high int16 of each lane as int32.
  RENGA_WORD I LowWords(I v) { return ShiftLeft<16>(v) >> 16; }
  RENGA_WORD I HighWords(I v) { return v >> 16; }
};

}  // namespace renga::kernels::cpu

#endif  // RENGA_WORKER_KERNELS_CPU_ISA_GENERIC_H_

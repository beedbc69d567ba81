// Rounds rows of floats to 8-bit blocks (activations.h).
#ifndef RENGA_WORKER_KERNELS_CPU_QUANTIZE_ACTIVATIONS_H_
#define RENGA_WORKER_KERNELS_CPU_QUANTIZE_ACTIVATIONS_H_

#include <cstddef>
#include <cstdint>

#include "worker/kernels/cpu/activations.h"

namespace renga::kernels::cpu {

template <class Isa>
struct Quantizer {
  using F = typename Isa::F;

  // Codes of one block, the largest magnitude becoming 127; returns the scale.
  template <int kElements>
  static float Codes(const float* in, int8_t* codes) {
    F largest = Isa::ZeroF();
    for (int i = 0; i < kElements; i += Isa::kLanes) {
      largest = Isa::MaxF(largest, Isa::AbsF(Isa::LoadF(in + i)));
    }
    const float peak = Isa::LargestF(largest);
    const F inverse = Isa::SetF(peak > 0 ? 127.0f / peak : 0.0f);
    // The bounds matter only for input that is not finite.
    const F low = Isa::SetF(-127.0f), high = Isa::SetF(127.0f);
    for (int i = 0; i < kElements; i += Isa::kLanes) {
      const F x = Isa::MulF(Isa::LoadF(in + i), inverse);
      Isa::StoreBytes(codes + i, Isa::Round(Isa::MinF(Isa::MaxF(x, low), high)));
    }
    return peak / 127.0f;
  }

  // Two parts of a sum: where kWordScales of the first and the last eight of 16 codes, else of
  // bytes 0 and 1 of each group of four codes and of bytes 2 and 3.
  struct HalfSums {
    int32_t first, second;
    int32_t Sum() const { return first + second; }
    HalfSums operator+(HalfSums other) const {
      return {first + other.first, second + other.second};
    }
    int32_t Start(int32_t factor) const {  // activations.h
      if constexpr (Isa::kDot32) return -factor * Sum();
      return StartPair(factor);
    }
    int32_t StartPair(int32_t factor) const {
      return static_cast<int32_t>((static_cast<uint32_t>(-factor * first) & 0xffff) |
                                  static_cast<uint32_t>(-factor * second) << 16);
    }
    int32_t Start16(int32_t factor) const {
      if constexpr (Isa::kWordScales) return StartPair(factor);
      return Start(factor);
    }
  };

  static HalfSums Sums16(const int8_t* codes) {
    if constexpr (Isa::kWordScales) {
      return {PairSums<8>(codes).Sum(), PairSums<8>(codes + 8).Sum()};
    }
    return PairSums<16>(codes);
  }

  // Of bytes 0 and 1, and 2 and 3, of groups. Eight codes are in a word: 128 is added to each, and
  // neighbours are added up in 16 bits.
  template <int n>
  static HalfSums PairSums(const int8_t* codes) {
    constexpr uint64_t kBytes = 0x00ff00ff00ff00ff;
    uint64_t sums = 0;
    for (int i = 0; i < n; i += 8) {
      uint64_t word;
      __builtin_memcpy(&word, codes + i, sizeof(word));
      word ^= 0x8080808080808080;
      sums += (word & kBytes) + ((word >> 8) & kBytes);
    }
    sums += sums >> 32;
    return {static_cast<int32_t>(sums & 0xffff) - n / 2 * 128,
            static_cast<int32_t>((sums >> 16) & 0xffff) - n / 2 * 128};
  }

  static void Sums(ByteBlock<32>* block) {
    const HalfSums sums = Sums16(block->codes) + Sums16(block->codes + 16);
    block->start = sums.Start(1);
    block->scaled_sum = block->scale * static_cast<float>(sums.Sum());
  }

  static void Sums(ByteBlock<256>* block) {
    for (int i = 0; i < 8; ++i) {
      const HalfSums first = Sums16(block->codes + 32 * i);
      const HalfSums second = Sums16(block->codes + 32 * i + 16);
      block->sums16[2 * i] = static_cast<int16_t>(first.Sum());
      block->sums16[2 * i + 1] = static_cast<int16_t>(second.Sum());
      block->sums32[i] = static_cast<int16_t>((first + second).Sum());
      block->starts16[2 * i] = first.Start16(kStartFactor16);
      block->starts16[2 * i + 1] = second.Start16(kStartFactor16);
    }
    block->negative_scale = -block->scale;
  }

  // One token's row of `columns` numbers into blocks that lie `tokens` apart.
  template <int kElements>
  static void ByteRow(const float* in, int64_t columns, int64_t tokens, ByteBlock<kElements>* out) {
    for (int64_t c = 0; c < columns; c += kElements, out += tokens) {
      out->scale = Codes<kElements>(in + c, out->codes);
      Sums(out);
    }
  }

  template <int kElements>
  static void WordRow(const float* in, int64_t columns, int64_t tokens, WordBlock<kElements>* out) {
    int8_t codes[kElements];
    for (int64_t c = 0; c < columns; c += kElements, out += tokens) {
      out->scale = Codes<kElements>(in + c, codes);
      for (int i = 0; i < kElements; i += 4) {
        out->codes[i] = codes[i];
        out->codes[i + 1] = codes[i + 2];
        out->codes[i + 2] = codes[i + 1];
        out->codes[i + 3] = codes[i + 3];
      }
      if constexpr (kElements == 32) {
        out->start = 0;
        for (int i = 0; i < kElements; i += 2) out->start -= codes[i] * codes[i + 1];
      }
    }
  }

  // `out` is the first block of token `token` of `tokens`.
  static void Row(ActivationKind kind, const float* in, int64_t columns, int64_t tokens,
                  std::byte* out) {
    switch (kind) {
      case ActivationKind::kFloat:
      case ActivationKind::kSplit32:  // the paths that have it round it themselves
        return;
      case ActivationKind::kBytes32:
        return ByteRow(in, columns, tokens, reinterpret_cast<ByteBlock<32>*>(out));
      case ActivationKind::kBytes256:
        return ByteRow(in, columns, tokens, reinterpret_cast<ByteBlock<256>*>(out));
      case ActivationKind::kWords32:
        return WordRow(in, columns, tokens, reinterpret_cast<WordBlock<32>*>(out));
      case ActivationKind::kWords256:
        return WordRow(in, columns, tokens, reinterpret_cast<WordBlock<256>*>(out));
    }
  }
};

}  // namespace renga::kernels::cpu

#endif  // RENGA_WORKER_KERNELS_CPU_QUANTIZE_ACTIVATIONS_H_

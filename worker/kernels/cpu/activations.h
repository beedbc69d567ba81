// Activations as the matrix kernels read them: one row of floats per token becomes a row of blocks
// of bytes with a scale (and sums, for formats whose codes carry an offset), once per Linear call.
//
// Blocks of a call are ordered [block][token], so that the kernels walk memory forwards: for one
// block of weights they visit every token.
#ifndef RENGA_WORKER_KERNELS_CPU_ACTIVATIONS_H_
#define RENGA_WORKER_KERNELS_CPU_ACTIVATIONS_H_

#include <cstddef>
#include <cstdint>

namespace renga::kernels::cpu {

enum class ActivationKind : int8_t {
  kFloat,     // the input rows themselves
  kBytes32,   // ByteBlock<32>
  kBytes256,  // ByteBlock<256>
  kWords32,   // WordBlock<32>
  kWords256,  // WordBlock<256>
  kSplit32,   // SplitBlock; the last may be filled up with zeros
};
inline constexpr int kActivationKinds = 6;

// value = scale * code, codes in -127..127. For weights with unsigned codes.
template <int kElements>
struct ByteBlock;

template <>
struct alignas(16) ByteBlock<32> {
  int8_t codes[32];
  float scale;
  float scaled_sum;  // scale * sum
  int32_t start;     // of all codes, times 1
};

// A sum of products of codes with their offset needs no correction if it begins with minus what the
// offset adds to it. A start is minus the sum of some of the activations' codes, times a factor; on
// paths whose partial sums are pairs of int16 (isa_generic.h) it is such a pair as well: the sum of
// bytes 0 and 1 of each group of four, and that of bytes 2 and 3. Of starts16, on paths with
// kWordScales, the first int16 is of the first eight codes and the second of the others.
// This is the factor of starts16: the offset of Q6_K's codes.
inline constexpr int kStartFactor16 = 32;

template <>
struct alignas(16) ByteBlock<256> {
  int8_t codes[256];
  int16_t sums16[16];  // of 16 codes
  int16_t sums32[8];   // of 32 codes
  float scale;
  float negative_scale;
  int32_t starts16[16];  // of 16 codes, times kStartFactor16
};

// The same codes as int16, each group of four in the order 0, 2, 1, 3. For weights with signed
// codes on processors that multiply words.
template <int kElements>
struct alignas(16) WordBlock {
  int16_t codes[kElements];
  float scale;
  int32_t start;  // of 32 codes: minus the sum of what CrossDot has too much because of them
};

// value = high + low, both bfloat16, off by at most 2^-17 of it. For weights in BF16 on processors
// that multiply tiles of them.
struct alignas(64) SplitBlock {
  uint16_t high[32];
  uint16_t low[32];
};

static_assert(sizeof(SplitBlock) == 128);
static_assert(sizeof(ByteBlock<32>) == 48);
static_assert(sizeof(ByteBlock<256>) == 384);
static_assert(sizeof(WordBlock<32>) == 80);
static_assert(sizeof(WordBlock<256>) == 528);

constexpr int64_t ActivationBlockElements(ActivationKind kind) {
  switch (kind) {
    case ActivationKind::kFloat:
      return 1;
    case ActivationKind::kBytes32:
    case ActivationKind::kWords32:
    case ActivationKind::kSplit32:
      return 32;
    case ActivationKind::kBytes256:
    case ActivationKind::kWords256:
      return 256;
  }
  return 1;
}

constexpr int64_t ActivationBlockBytes(ActivationKind kind) {
  switch (kind) {
    case ActivationKind::kFloat:
      return 0;  // nothing is stored
    case ActivationKind::kBytes32:
      return sizeof(ByteBlock<32>);
    case ActivationKind::kBytes256:
      return sizeof(ByteBlock<256>);
    case ActivationKind::kWords32:
      return sizeof(WordBlock<32>);
    case ActivationKind::kWords256:
      return sizeof(WordBlock<256>);
    case ActivationKind::kSplit32:
      return sizeof(SplitBlock);
  }
  return 0;
}

}  // namespace renga::kernels::cpu

#endif  // RENGA_WORKER_KERNELS_CPU_ACTIVATIONS_H_

// The vector words of NEON with matrix products of bytes (Cortex-A510, A710, X2 and later, Apple's
// M2): those with dot products, and words for many tokens. Their integer sums are exact as all
// others, so this path gives the bits of isa_neon.h's.
//
// I8MM's other instruction, dot products of unsigned and signed bytes, is not needed: no format has
// codes that are not int8.
// Include from translation units compiled with +dotprod+i8mm alone.
#ifndef RENGA_WORKER_KERNELS_CPU_ISA_NEON_I8MM_H_
#define RENGA_WORKER_KERNELS_CPU_ISA_NEON_I8MM_H_

#include <arm_neon.h>

#include <cstdint>

#include "worker/kernels/cpu/isa_neon_dotprod.h"
#include "worker/kernels/cpu/unroll.h"

namespace renga::kernels::cpu {

// An instruction multiplies two rows of eight codes with two tokens' eight activations. Rows lie
// one to a lane, four codes of each in a vector; interleaving the vectors of neighbouring groups,
// once for all tokens, makes rows of eight codes out of neighbouring lanes.
struct NeonI8mm : NeonDotprod {
  static constexpr bool kTokenPairs = true;

  // Lanes a0 b0 a1 b1 ... of the first and of the second half of a and b.
  RENGA_WORD I InterleaveFirst(I a, I b) {
    return {vzip1q_s32(a.low, b.low), vzip2q_s32(a.low, b.low)};
  }
  RENGA_WORD I InterleaveSecond(I a, I b) {
    return {vzip1q_s32(a.high, b.high), vzip2q_s32(a.high, b.high)};
  }
  // The even (odd) lanes of a, then those of b.
  RENGA_WORD I EvenLanes(I a, I b) {
    return {vuzp1q_s32(a.low, a.high), vuzp1q_s32(b.low, b.high)};
  }
  RENGA_WORD I OddLanes(I a, I b) { return {vuzp2q_s32(a.low, a.high), vuzp2q_s32(b.low, b.high)}; }
  // Eight bytes of one token and eight of another, for every four lanes.
  RENGA_WORD I LoadPair(const int8_t* first, const int8_t* second) {
    const int32x4_t pair = vreinterpretq_s32_s8(vcombine_s8(vld1_s8(first), vld1_s8(second)));
    return {pair, pair};
  }
  // To lane 2r (2r + 1) of acc, the products of lanes 2r and 2r + 1 of codes with the first
  // (second) token of the pair.
  RENGA_WORD I DotPairs(I acc, I codes, I pair) {
    return {MatrixHalf(acc.low, codes.low, pair.low), MatrixHalf(acc.high, codes.high, pair.high)};
  }

 private:
  RENGA_WORD int32x4_t MatrixHalf(int32x4_t acc, int32x4_t a, int32x4_t b) {
    return vmmlaq_s32(acc, vreinterpretq_s8_s32(a), vreinterpretq_s8_s32(b));
  }
};

}  // namespace renga::kernels::cpu

#endif  // RENGA_WORKER_KERNELS_CPU_ISA_NEON_I8MM_H_

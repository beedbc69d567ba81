// The instruction mma with int8 and with halves in plain C++, as NVIDIA's PTX ISA describes it
// (Warp Level Matrix Instructions, mma.m16n8k16, mma.m16n8k32 and mma.m8n8k16 with .s8): which lane
// holds which numbers.
#ifndef RENGA_WORKER_KERNELS_CUDA_EMULATION_TENSOR_MODEL_H_
#define RENGA_WORKER_KERNELS_CUDA_EMULATION_TENSOR_MODEL_H_

#include <cstdint>

namespace renga::kernels::cuda::emulation {

// A lane's registers, four signed bytes or two halves each: of A (16 rows x depth) and of B (depth
// x 8 columns). With a depth of 16 the first two of `a` and the first of `b` count.
struct ByteFragments {
  int32_t a[4];
  int32_t b[2];
};

// Adds to the four sums that `lane` holds of D (16 x 8) the products of all 32 lanes' fragments;
// `depth` is 16 or 32.
void AddProducts(const ByteFragments (&lanes)[32], int depth, int lane, int32_t (&sums)[4]);

// The same of the instruction with 8 rows and a depth of 16: the first of `a` and of `b` count, a
// lane holds two sums.
void AddHalfProducts(const ByteFragments (&lanes)[32], int lane, int32_t (&sums)[2]);

// Of halves (mma.m16n8k16 and m16n8k8 with .f32.f16.f16.f32): `depth` is 16 or 8, registers count
// as above with half the depth. What a card does is its own in the last bits; here sums of 8
// products are rounded once.
void AddHalvesProducts(const ByteFragments (&lanes)[32], int depth, int lane, float (&sums)[4]);

}  // namespace renga::kernels::cuda::emulation

#endif  // RENGA_WORKER_KERNELS_CUDA_EMULATION_TENSOR_MODEL_H_

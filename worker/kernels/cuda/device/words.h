// The words that kernels are written in, for three compilers: nvcc, clang's CUDA, and plain C++
// over the emulation (worker/kernels/cuda/emulation/), where tests run the same sources.
//
// Floating point is spelled out (Fma, Multiply, Sum), because a compiler that joins a product and a
// sum in one kernel and not in another would change bits.
#ifndef RENGA_WORKER_KERNELS_CUDA_DEVICE_WORDS_H_
#define RENGA_WORKER_KERNELS_CUDA_DEVICE_WORDS_H_

#include <cstdint>

#include "worker/kernels/cuda/device/target.h"

#if RENGA_ON_DEVICE
#include <math.h>
#else
#include <bit>
#include <cmath>
#include <cstring>

#include "base/half_float.h"
#include "worker/kernels/cuda/emulation/threads.h"
#endif

#if RENGA_ON_DEVICE
// `count` numbers that the threads of a block share; nothing is in them at first.
#define RENGA_SHARED(Type, name, count) __shared__ __align__(16) Type name[count]
#define RENGA_UNROLL _Pragma("unroll")
#define RENGA_UNROLL_BY_4 _Pragma("unroll 4")
#else
#define RENGA_SHARED(Type, name, count) \
  Type* const name = static_cast<Type*>(emulation::SharedMemory(sizeof(Type) * (count)))
#define RENGA_UNROLL
#define RENGA_UNROLL_BY_4
#endif

namespace renga::kernels::cuda {

// Four numbers that one instruction loads; addresses are multiples of 16.
struct alignas(16) Words4 {
  int32_t word[4];
};
struct alignas(8) Words2 {
  int32_t word[2];
};

constexpr int kWarp = 32;

#if RENGA_ON_DEVICE

RENGA_DEVICE int ThreadIndex() { return static_cast<int>(threadIdx.x); }
RENGA_DEVICE int64_t BlockX() { return blockIdx.x; }
RENGA_DEVICE int64_t BlockY() { return blockIdx.y; }
RENGA_DEVICE int64_t BlockThreads() { return blockDim.x; }
RENGA_DEVICE void SyncBlock() { __syncthreads(); }
RENGA_DEVICE void SyncWarp() { __syncwarp(); }
template <class T>
RENGA_DEVICE T ShuffleXor(T value, int mask) {
  return __shfl_xor_sync(0xffffffffu, value, mask);
}
RENGA_DEVICE int32_t Dp4a(int32_t a, int32_t b, int32_t sum) { return __dp4a(a, b, sum); }
// MmaBytes32 adds to `sums` (16 rows x 8 columns, over the warp) the products of 16 x 32 signed
// bytes with 32 x 8, MmaBytes16 those of half as many; MmaBytesOf8Rows is what cards of 7.5 have:
// rows 0-7 of the latter. MmaHalves adds to sums in
// float those of 16 x 16 halves with 16 x 8. Which lane holds what: emulation/tensor_model.cc. All
// lanes must come.
#if RENGA_TENSOR_CORES && defined(__CUDA_ARCH__) && __CUDA_ARCH__ < 800
RENGA_DEVICE void MmaBytesOf8Rows(int32_t a, int32_t b, int32_t& first, int32_t& second) {
  asm volatile("mma.sync.aligned.m8n8k16.row.col.s32.s8.s8.s32 {%0, %1}, {%2}, {%3}, {%0, %1};"
               : "+r"(first), "+r"(second)
               : "r"(a), "r"(b));
}
RENGA_DEVICE void MmaBytes16(int32_t a0, int32_t a1, int32_t b, int32_t (&sums)[4]) {
  MmaBytesOf8Rows(a0, b, sums[0], sums[1]);
  MmaBytesOf8Rows(a1, b, sums[2], sums[3]);
}
RENGA_DEVICE void MmaBytes32(const int32_t (&a)[4], const int32_t (&b)[2], int32_t (&sums)[4]) {
  MmaBytes16(a[0], a[1], b[0], sums);
  MmaBytes16(a[2], a[3], b[1], sums);
}
RENGA_DEVICE void MmaHalvesOf8(int32_t a0, int32_t a1, int32_t b, float (&sums)[4]) {
  asm volatile(
      "mma.sync.aligned.m16n8k8.row.col.f32.f16.f16.f32 "
      "{%0, %1, %2, %3}, {%4, %5}, {%6}, {%0, %1, %2, %3};"
      : "+f"(sums[0]), "+f"(sums[1]), "+f"(sums[2]), "+f"(sums[3])
      : "r"(a0), "r"(a1), "r"(b));
}
RENGA_DEVICE void MmaHalves(const int32_t (&a)[4], const int32_t (&b)[2], float (&sums)[4]) {
  MmaHalvesOf8(a[0], a[1], b[0], sums);
  MmaHalvesOf8(a[2], a[3], b[1], sums);
}
#elif RENGA_TENSOR_CORES
RENGA_DEVICE void MmaHalves(const int32_t (&a)[4], const int32_t (&b)[2], float (&sums)[4]) {
  asm volatile(
      "mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 "
      "{%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
      : "+f"(sums[0]), "+f"(sums[1]), "+f"(sums[2]), "+f"(sums[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}
RENGA_DEVICE void MmaBytes32(const int32_t (&a)[4], const int32_t (&b)[2], int32_t (&sums)[4]) {
  asm volatile(
      "mma.sync.aligned.m16n8k32.row.col.s32.s8.s8.s32 "
      "{%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
      : "+r"(sums[0]), "+r"(sums[1]), "+r"(sums[2]), "+r"(sums[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}
RENGA_DEVICE void MmaBytes16(int32_t a0, int32_t a1, int32_t b, int32_t (&sums)[4]) {
  asm volatile(
      "mma.sync.aligned.m16n8k16.row.col.s32.s8.s8.s32 "
      "{%0, %1, %2, %3}, {%4, %5}, {%6}, {%0, %1, %2, %3};"
      : "+r"(sums[0]), "+r"(sums[1]), "+r"(sums[2]), "+r"(sums[3])
      : "r"(a0), "r"(a1), "r"(b));
}
#endif
RENGA_DEVICE float Fma(float a, float b, float c) { return __fmaf_rn(a, b, c); }
RENGA_DEVICE float Multiply(float a, float b) { return __fmul_rn(a, b); }
RENGA_DEVICE float Sum(float a, float b) { return __fadd_rn(a, b); }
RENGA_DEVICE float Divide(float a, float b) { return __fdiv_rn(a, b); }
RENGA_DEVICE float Round(float a) { return rintf(a); }
// NaN counts for nothing beside a number.
RENGA_DEVICE float Max(float a, float b) { return fmaxf(a, b); }
RENGA_DEVICE float Min(float a, float b) { return fminf(a, b); }
RENGA_DEVICE float BitsToFloat(uint32_t bits) { return __uint_as_float(bits); }
RENGA_DEVICE uint32_t FloatToBits(float value) { return __float_as_uint(value); }
RENGA_DEVICE float HalfToFloat(uint16_t half) {
  float value;
  asm("cvt.f32.f16 %0, %1;" : "=f"(value) : "h"(half));
  return value;
}
RENGA_DEVICE uint16_t FloatToHalf(float value) {
  uint16_t half;
  asm("cvt.rn.f16.f32 %0, %1;" : "=h"(half) : "f"(value));
  return half;
}
// Reads memory that no kernel writes while this one runs, past the caches that must stay coherent.
RENGA_DEVICE Words4 LoadWords4(const void* at) {
  const int4 v = __ldg(static_cast<const int4*>(at));
  return {{v.x, v.y, v.z, v.w}};
}
RENGA_DEVICE Words2 LoadWords2(const void* at) {
  const int2 v = __ldg(static_cast<const int2*>(at));
  return {{v.x, v.y}};
}
template <class T>
RENGA_DEVICE T LoadOnce(const T* at) {
  return __ldg(at);
}

#else  // emulation

using emulation::BlockThreads;
using emulation::BlockX;
using emulation::BlockY;
using emulation::ShuffleXor;
using emulation::SyncBlock;
using emulation::SyncWarp;
using emulation::ThreadIndex;
inline int32_t Dp4a(int32_t a, int32_t b, int32_t sum) {
  for (int i = 0; i < 32; i += 8) {
    sum += static_cast<int32_t>(static_cast<int8_t>(static_cast<uint32_t>(a) >> i)) *
           static_cast<int8_t>(static_cast<uint32_t>(b) >> i);
  }
  return sum;
}
// An emulated card has the instructions of 7.5, or those of newer ones.
inline void MmaBytes16(int32_t a0, int32_t a1, int32_t b, int32_t (&sums)[4]) {
  if (emulation::MmaRows() == 16) {
    return emulation::MultiplyInWarp({{a0, a1, 0, 0}, {b, 0}}, 16, sums);
  }
  emulation::MultiplyHalfInWarp(a0, b, sums[0], sums[1]);
  emulation::MultiplyHalfInWarp(a1, b, sums[2], sums[3]);
}
inline void MmaBytes32(const int32_t (&a)[4], const int32_t (&b)[2], int32_t (&sums)[4]) {
  if (emulation::MmaRows() == 16) {
    return emulation::MultiplyInWarp({{a[0], a[1], a[2], a[3]}, {b[0], b[1]}}, 32, sums);
  }
  MmaBytes16(a[0], a[1], b[0], sums);
  MmaBytes16(a[2], a[3], b[1], sums);
}
inline void MmaHalves(const int32_t (&a)[4], const int32_t (&b)[2], float (&sums)[4]) {
  if (emulation::MmaRows() == 16) {
    return emulation::MultiplyHalvesInWarp({{a[0], a[1], a[2], a[3]}, {b[0], b[1]}}, 16, sums);
  }
  emulation::MultiplyHalvesInWarp({{a[0], a[1], 0, 0}, {b[0], 0}}, 8, sums);
  emulation::MultiplyHalvesInWarp({{a[2], a[3], 0, 0}, {b[1], 0}}, 8, sums);
}
inline float Fma(float a, float b, float c) { return std::fma(a, b, c); }
inline float Multiply(float a, float b) { return a * b; }
inline float Sum(float a, float b) { return a + b; }
inline float Divide(float a, float b) { return a / b; }
inline float Round(float a) { return std::nearbyint(a); }
inline float Max(float a, float b) { return a > b || b != b ? a : b; }
inline float Min(float a, float b) { return a < b || b != b ? a : b; }
inline float BitsToFloat(uint32_t bits) { return std::bit_cast<float>(bits); }
inline uint32_t FloatToBits(float value) { return std::bit_cast<uint32_t>(value); }
inline float HalfToFloat(uint16_t half) { return base::HalfToFloat(half); }
inline uint16_t FloatToHalf(float value) { return base::FloatToHalf(value); }
template <class T>
inline T LoadOnce(const T* at) {
  emulation::CheckLoad(at, alignof(T));
  T value;
  std::memcpy(&value, at, sizeof(T));
  return value;
}
inline Words4 LoadWords4(const void* at) { return LoadOnce(static_cast<const Words4*>(at)); }
inline Words2 LoadWords2(const void* at) { return LoadOnce(static_cast<const Words2*>(at)); }

#endif  // RENGA_ON_DEVICE

RENGA_DEVICE int Lane() { return ThreadIndex() % kWarp; }
RENGA_DEVICE int WarpIndex() { return ThreadIndex() / kWarp; }

// Joins the values of `kLanes` neighbouring lanes as a butterfly of shuffles does: all of them get
// the same bits, if `join` does not mind which operand comes first.
template <int kLanes, class T, class Join>
RENGA_DEVICE T Reduce(T value, const Join& join) {
#if RENGA_ON_DEVICE
  RENGA_UNROLL
  for (int mask = 1; mask < kLanes; mask *= 2) value = join(value, ShuffleXor(value, mask));
  return value;
#else
  // In one exchange: each costs the emulation a change of stacks.
  T values[kWarp];
  emulation::GatherWarp(value, values);
  T* const mine = values + Lane() / kLanes * kLanes;
  for (int step = 1; step < kLanes; step *= 2) {
    for (int i = 0; i < kLanes; i += 2 * step) mine[i] = join(mine[i], mine[i + step]);
  }
  return mine[0];
#endif
}

struct JoinSum {
  RENGA_DEVICE float operator()(float a, float b) const { return Sum(a, b); }
  RENGA_DEVICE double operator()(double a, double b) const { return a + b; }
  RENGA_DEVICE int32_t operator()(int32_t a, int32_t b) const { return a + b; }
};
struct JoinMax {
  RENGA_DEVICE float operator()(float a, float b) const { return Max(a, b); }
  RENGA_DEVICE uint64_t operator()(uint64_t a, uint64_t b) const { return a > b ? a : b; }
};

template <class T>
RENGA_DEVICE T WarpSum(T value) {
  return Reduce<kWarp>(value, JoinSum());
}
template <class T>
RENGA_DEVICE T WarpMax(T value) {
  return Reduce<kWarp>(value, JoinMax());
}

}  // namespace renga::kernels::cuda

#endif  // RENGA_WORKER_KERNELS_CUDA_DEVICE_WORDS_H_

#include "bench/peak_operations.h"

#include <algorithm>
#include <chrono>
#include <cstdint>

#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace renga::bench {
namespace {

constexpr int kTries = 5;
constexpr int64_t kRounds = 500'000;

#if defined(__x86_64__)
// Each of these does kRounds times eight dot products of two registers of bytes, each added to a
// sum of its own. Written out: in an array the sums would go through memory.

__attribute__((target("avx512f,avx512bw,avx512vnni"))) inline __m512i AddDot(__m512i sum,
                                                                             __m512i x) {
  asm volatile("" : "+v"(x));  // another operand, for all the compiler knows
  return _mm512_dpbusd_epi32(sum, x, x);
}
__attribute__((target("avx512f,avx512bw,avx512vnni"))) void DotAvx512Vnni() {
  // Twice as many chains for half the rounds: two that begin in a cycle and take five need ten.
  __m512i a = {}, b = {}, c = {}, d = {}, e = {}, f = {}, g = {}, h = {};
  __m512i i = {}, j = {}, k = {}, l = {}, m = {}, n = {}, o = {}, p = {};
  const __m512i x = _mm512_set1_epi8(1);
  for (int64_t round = 0; round < kRounds / 2; ++round) {
    a = AddDot(a, x), b = AddDot(b, x), c = AddDot(c, x), d = AddDot(d, x);
    e = AddDot(e, x), f = AddDot(f, x), g = AddDot(g, x), h = AddDot(h, x);
    i = AddDot(i, x), j = AddDot(j, x), k = AddDot(k, x), l = AddDot(l, x);
    m = AddDot(m, x), n = AddDot(n, x), o = AddDot(o, x), p = AddDot(p, x);
  }
  asm volatile("" ::"v"(a), "v"(b), "v"(c), "v"(d), "v"(e), "v"(f), "v"(g), "v"(h));
  asm volatile("" ::"v"(i), "v"(j), "v"(k), "v"(l), "v"(m), "v"(n), "v"(o), "v"(p));
}

__attribute__((target("avx2"))) inline __m256i AddDot(__m256i sum, __m256i x) {
  asm volatile("" : "+x"(x));
  return _mm256_add_epi16(sum, _mm256_maddubs_epi16(x, x));
}
__attribute__((target("avx2"))) void DotAvx2() {
  __m256i a = {}, b = {}, c = {}, d = {}, e = {}, f = {}, g = {}, h = {};
  const __m256i x = _mm256_set1_epi8(1);
  for (int64_t i = 0; i < kRounds; ++i) {
    a = AddDot(a, x), b = AddDot(b, x), c = AddDot(c, x), d = AddDot(d, x);
    e = AddDot(e, x), f = AddDot(f, x), g = AddDot(g, x), h = AddDot(h, x);
  }
  asm volatile("" ::"x"(a), "x"(b), "x"(c), "x"(d), "x"(e), "x"(f), "x"(g), "x"(h));
}

__attribute__((target("ssse3"))) inline __m128i AddDot(__m128i sum, __m128i x) {
  asm volatile("" : "+x"(x));
  return _mm_add_epi16(sum, _mm_maddubs_epi16(x, x));
}
__attribute__((target("ssse3"))) void DotSsse3() {
  __m128i a = {}, b = {}, c = {}, d = {}, e = {}, f = {}, g = {}, h = {};
  const __m128i x = _mm_set1_epi8(1);
  for (int64_t i = 0; i < kRounds; ++i) {
    a = AddDot(a, x), b = AddDot(b, x), c = AddDot(c, x), d = AddDot(d, x);
    e = AddDot(e, x), f = AddDot(f, x), g = AddDot(g, x), h = AddDot(h, x);
  }
  asm volatile("" ::"x"(a), "x"(b), "x"(c), "x"(d), "x"(e), "x"(f), "x"(g), "x"(h));
}
#endif

struct Loop {
  const char* instructions = "";
  void (*run)() = nullptr;
  int64_t operations = 0;  // of one run
};

Loop WidestLoop() {
  constexpr int64_t kDots = kRounds * 8;
#if defined(__x86_64__)
  __builtin_cpu_init();
  if (__builtin_cpu_supports("avx512vnni") && __builtin_cpu_supports("avx512bw")) {
    return {"VPDPBUSD of 64 bytes", &DotAvx512Vnni, kDots * 128};
  }
  if (__builtin_cpu_supports("avx2")) {
    return {"VPMADDUBSW and VPADDW of 32 bytes", &DotAvx2, kDots * 64};
  }
  if (__builtin_cpu_supports("ssse3")) {
    return {"PMADDUBSW and PADDW of 16 bytes", &DotSsse3, kDots * 32};
  }
#endif
  return {"", nullptr, kDots};
}

}  // namespace

PeakOperations MeasurePeakOperations(base::ThreadPool& pool) {
  const Loop loop = WidestLoop();
  if (loop.run == nullptr) return {};
  using Clock = std::chrono::steady_clock;
  double best = 0;
  for (int i = 0; i < kTries; ++i) {
    const auto start = Clock::now();
    pool.ParallelFor(pool.thread_count(), 1, [&](int64_t begin, int64_t end) {
      for (int64_t k = begin; k < end; ++k) loop.run();
    });
    const double seconds = std::chrono::duration<double>(Clock::now() - start).count();
    best = std::max(best, static_cast<double>(loop.operations * pool.thread_count()) / seconds);
  }
  return {.instructions = loop.instructions, .operations_per_second = best};
}

}  // namespace renga::bench

// AMX: tiles of bytes and of bfloat16 (tiles.h says what each function means), and the vector words
// of AVX-512 VNNI beside them.
// Include from translation units compiled with AVX-512's and AMX's flags alone.
#ifndef RENGA_WORKER_KERNELS_CPU_ISA_AMX_H_
#define RENGA_WORKER_KERNELS_CPU_ISA_AMX_H_

#include <immintrin.h>

#include <cstdint>

#include "worker/kernels/cpu/isa_avx512.h"
#include "worker/kernels/cpu/tiles.h"
#include "worker/kernels/cpu/unroll.h"

namespace renga::kernels::cpu {

struct Amx : Avx512Vnni {
  RENGA_WORD I EvenWords(I v) { return _mm512_srai_epi16(_mm512_slli_epi16(v, 8), 8); }
  RENGA_WORD I OddWords(I v) { return _mm512_srai_epi16(v, 8); }
  RENGA_WORD I MulWords(I a, I b) { return _mm512_mullo_epi16(a, b); }
};

// In assembly: gcc 12's intrinsics take tile numbers only as literals, and do not tell the compiler
// that they read memory. The statements are volatile, so they keep their order.
struct AmxTiles {
  RENGA_WORD void Configure(int tokens, int depth) {
    const TileConfig config(tokens, depth);
    asm volatile("ldtilecfg %0" : : "m"(config));
  }
  RENGA_WORD void Release() { asm volatile("tilerelease"); }
  template <int tile>
  RENGA_WORD void Load(const void* p, int64_t stride) {
    asm volatile("tileloadd (%0,%1,1), %%tmm%c2" : : "r"(p), "r"(stride), "i"(tile) : "memory");
  }
  template <int tile>
  RENGA_WORD void Store(void* p, int64_t stride) {
    asm volatile("tilestored %%tmm%c2, (%0,%1,1)" : : "r"(p), "r"(stride), "i"(tile) : "memory");
  }
  template <int tile>
  RENGA_WORD void Zero() {
    asm volatile("tilezero %%tmm%c0" : : "i"(tile));
  }
  template <int sums, int a, int w>
  RENGA_WORD void DotSigned() {
    asm volatile("tdpbssd %%tmm%c2, %%tmm%c1, %%tmm%c0" : : "i"(sums), "i"(a), "i"(w));
  }
  template <int sums, int a, int w>
  RENGA_WORD void DotUnsigned() {
    asm volatile("tdpbsud %%tmm%c2, %%tmm%c1, %%tmm%c0" : : "i"(sums), "i"(a), "i"(w));
  }
  template <int sums, int a, int w>
  RENGA_WORD void DotBf16() {
    asm volatile("tdpbf16ps %%tmm%c2, %%tmm%c1, %%tmm%c0" : : "i"(sums), "i"(a), "i"(w));
  }
};

}  // namespace renga::kernels::cpu

#endif  // RENGA_WORKER_KERNELS_CPU_ISA_AMX_H_

// A screen's inner loops for processors with AVX-512, to be called only where `Has` says so, and
// what they share with those for AVX2.
#ifndef RENGA_WORKER_ENGINE_SCREEN_SCAN_AVX512_H_
#define RENGA_WORKER_ENGINE_SCREEN_SCAN_AVX512_H_

#include <array>
#include <cstddef>
#include <cstdint>

#include "worker/engine/screen_scan.h"

namespace renga::engine {

#if defined(__x86_64__)
// Sums of rows r, r + 4, ... to their places; `parts` are those of r = 0, 2, 1, 3.
inline void StoreSums(const int32_t (&parts)[4][8], int32_t* sums) {
  for (int i = 0; i < 8; ++i) {
    sums[4 * i] = parts[0][i];
    sums[4 * i + 2] = parts[1][i];
    sums[4 * i + 1] = parts[2][i];
    sums[4 * i + 3] = parts[3][i];
  }
}

bool HasAvx512();      // F and BW
bool HasAvx512Vnni();  // these and VNNI
bool HasAvx512Vbmi();  // these and VBMI

// ScanPath's functions: the second for columns in quads.
void ScanPairAvx512(const std::array<const std::byte*, 2>& blocks, int64_t columns,
                    const NibbleTables& tables, int32_t* sums);
void ScanPairAvx512Vbmi(const std::array<const std::byte*, 2>& blocks, int64_t columns,
                        const NibbleTables& tables, int32_t* sums);

// SumBits with AVX-512 and VNNI.
int32_t SumBitsAvx512Vnni(const std::byte* bits, int64_t bytes, const BitWorths& worths);

// BoundBlock with AVX-512.
BlockPeak BoundBlockAvx512(const int32_t* sums, const std::byte* norms, const BoundFactors& factors,
                           BlockBounds& bounds);
#endif

}  // namespace renga::engine

#endif  // RENGA_WORKER_ENGINE_SCREEN_SCAN_AVX512_H_

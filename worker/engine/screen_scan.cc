#include "worker/engine/screen_scan.h"

#include <algorithm>
#include <bit>
#include <cstring>

#include "worker/engine/screen_scan_avx512.h"

#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace renga::engine {
namespace {

constexpr int64_t kLanes = 8;
// How far ahead of the codes memory is asked for what follows: blocks lie one after the other.
constexpr int64_t kPrefetchBytes = 4096;

// The lanes of a vector hold what rows 8 apart have at most.
[[gnu::always_inline]] inline float Most(const std::array<float, kScreenBlockRows>& numbers) {
  std::array<float, kLanes> most;
  std::copy_n(numbers.begin(), kLanes, most.begin());
  for (int64_t r = kLanes; r < kScreenBlockRows; r += kLanes) {
    for (int64_t lane = 0; lane < kLanes; ++lane) {
      most[lane] = numbers[r + lane] > most[lane] ? numbers[r + lane] : most[lane];
    }
  }
  return *std::max_element(most.begin(), most.end());
}

// Row by row in the inner loops, which compilers turn into vectors of whatever the caller has.
[[gnu::always_inline]] inline BlockPeak BoundRows(const int32_t* sums, const std::byte* stored,
                                                  const BoundFactors& factors,
                                                  BlockBounds& bounds) {
  const auto* norms = reinterpret_cast<const uint8_t*>(stored);
  float errors[kScreenBlockRows];
  std::fill_n(errors, kScreenBlockRows, factors.rounding);
  for (int64_t g = 0; g < kErrorNorms; ++g, norms += kScreenBlockRows) {
    const float factor = factors.of_norm[g];
    for (int64_t r = 0; r < kScreenBlockRows; ++r) {
      errors[r] += factor * static_cast<float>(norms[r]);
    }
  }
  uint16_t halves[kScreenBlockRows];
  std::memcpy(halves, norms, sizeof(halves));
  for (int64_t r = 0; r < kScreenBlockRows; ++r) {
    const auto scale = std::bit_cast<float>(static_cast<uint32_t>(halves[r]) << 16);
    const float estimate =
        factors.mean + scale * (factors.unit * static_cast<float>(sums[r]) + factors.base);
    bounds.estimate[r] = estimate;
    bounds.upper[r] = estimate + scale * errors[r] + factors.mean_rounding;
  }
  return {.estimate = Most(bounds.estimate), .upper = Most(bounds.upper)};
}

BlockPeak BoundPortably(const int32_t* sums, const std::byte* norms, const BoundFactors& factors,
                        BlockBounds& bounds) {
  return BoundRows(sums, norms, factors, bounds);
}

void ScanPairPortably(const std::array<const std::byte*, 2>& blocks, int64_t columns,
                      const NibbleTables& tables, int32_t* sums) {
  std::fill(sums, sums + 2 * kScreenBlockRows, 0);
  for (int64_t c = 0; c < columns; ++c) {
    const int64_t group = c / kScreenGroupColumns;
    int32_t entries[2][16];
    for (int half = 0; half < 2; ++half) {
      for (int i = 0; i < 16; ++i) {
        const int64_t at = (2 * c + half) * 16 + i;
        const int32_t high = group < tables.wide_groups ? tables.high[at] : 0;
        entries[half][i] = tables.factors[group] * (tables.low[at] + 256 * high);
      }
    }
    for (int64_t r = 0; r < 2 * kScreenBlockRows; ++r) {
      const std::byte* const column = blocks[r / kScreenBlockRows] + c * kScreenBlockRows;
      const auto byte = static_cast<uint8_t>(column[r % kScreenBlockRows]);
      sums[r] += entries[0][byte & 15] + entries[1][byte >> 4];
    }
  }
}

int32_t SumBitsPortably(const std::byte* bits, int64_t bytes, const BitWorths& worths) {
  // Two sums: additions wait for the one before.
  int32_t low = 0;
  int32_t high = 0;
  const int32_t* nibbles = worths.nibbles.data();
  for (int64_t at = 0; at < bytes; ++at, nibbles += 32) {
    const auto byte = static_cast<uint8_t>(bits[at]);
    low += nibbles[byte & 15];
    high += nibbles[16 + (byte >> 4)];
  }
  return low + high;
}

}  // namespace

BitWorths::BitWorths(const std::vector<int32_t>& worths) {
  std::vector<int32_t> padded = worths;
  padded.resize((worths.size() + kGroup - 1) / kGroup * kGroup, 0);
  nibbles.resize(padded.size() * 4);
  for (size_t i = 0; i < padded.size(); ++i) {
    high.push_back(static_cast<int8_t>((padded[i] + 128) >> 8));
    low.push_back(static_cast<int8_t>(padded[i] - 256 * high.back()));
    const size_t bit = size_t{1} << i % 4;
    int32_t* const values = nibbles.data() + i / 4 * 16;
    for (size_t value = 0; value < bit; ++value) values[bit + value] = values[value] + padded[i];
  }
}

#if defined(__x86_64__)
namespace {

// Sums of bytes by pairs of neighbours in 16 bits: `both` holds even + 256 odd (the overflow is
// wanted: even = both - 256 odd), `odd` the odd ones. 64 entries of a byte each fit 16 bits.
struct PairSums {
  __m256i both;
  __m256i odd;
};

// Of rows r, r + 4, ...: those of r = 0, 2, 1, 3.
struct Totals {
  __m256i rows[4];
};

[[gnu::target("avx2"), gnu::always_inline]] inline void Add(__m256i bytes, PairSums& sums) {
  sums.both = _mm256_add_epi16(sums.both, bytes);
  sums.odd = _mm256_add_epi16(sums.odd, _mm256_srli_epi16(bytes, 8));
}

[[gnu::target("avx2"), gnu::always_inline]] inline __m256i Table(const uint8_t* entries) {
  return _mm256_broadcastsi128_si256(_mm_loadu_si128(reinterpret_cast<const __m128i*>(entries)));
}

// Adds factor * the sums to the rows' totals.
[[gnu::target("avx2"), gnu::always_inline]] inline void Flush(const PairSums& sums, int32_t factor,
                                                              Totals& totals) {
  const __m256i times = _mm256_set1_epi32(factor);
  const __m256i low = _mm256_set1_epi32(0xffff);
  const __m256i even = _mm256_sub_epi16(sums.both, _mm256_slli_epi16(sums.odd, 8));
  const __m256i parts[4] = {_mm256_and_si256(even, low), _mm256_srli_epi32(even, 16),
                            _mm256_and_si256(sums.odd, low), _mm256_srli_epi32(sums.odd, 16)};
  for (int i = 0; i < 4; ++i) {
    totals.rows[i] = _mm256_add_epi32(totals.rows[i], _mm256_mullo_epi32(parts[i], times));
  }
}

// Columns [begin, end) of one group, of two blocks.
template <bool wide>
[[gnu::target("avx2"), gnu::always_inline]] inline void ScanGroup(
    const std::array<const std::byte*, 2>& blocks, int64_t begin, int64_t end,
    const NibbleTables& tables, int32_t factor, std::array<Totals, 2>& totals) {
  const __m256i nibble = _mm256_set1_epi8(15);
  const PairSums none{_mm256_setzero_si256(), _mm256_setzero_si256()};
  PairSums low[2] = {none, none};
  PairSums high[2] = {none, none};
  const uint8_t* const low_at = tables.low.data();
  const uint8_t* const high_at = tables.high.data();
  for (int64_t c = begin; c < end; ++c) {
    const __m256i low_first = Table(low_at + 32 * c);
    const __m256i low_second = Table(low_at + 32 * c + 16);
    for (int b = 0; b < 2; ++b) {
      const std::byte* const at = blocks[b] + c * kScreenBlockRows;
      __builtin_prefetch(at + kPrefetchBytes);
      const __m256i bytes = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(at));
      const __m256i first = _mm256_and_si256(bytes, nibble);
      const __m256i second = _mm256_and_si256(_mm256_srli_epi16(bytes, 4), nibble);
      Add(_mm256_shuffle_epi8(low_first, first), low[b]);
      Add(_mm256_shuffle_epi8(low_second, second), low[b]);
      if constexpr (wide) {
        Add(_mm256_shuffle_epi8(Table(high_at + 32 * c), first), high[b]);
        Add(_mm256_shuffle_epi8(Table(high_at + 32 * c + 16), second), high[b]);
      }
    }
  }
  for (int b = 0; b < 2; ++b) {
    Flush(low[b], factor, totals[b]);
    if constexpr (wide) Flush(high[b], 256 * factor, totals[b]);
  }
}

[[gnu::target("avx2")]] void ScanPairAvx2(const std::array<const std::byte*, 2>& blocks,
                                          int64_t columns, const NibbleTables& tables,
                                          int32_t* sums) {
  const __m256i zero = _mm256_setzero_si256();
  const Totals none{{zero, zero, zero, zero}};
  std::array<Totals, 2> totals = {none, none};
  for (int64_t begin = 0; begin < columns; begin += kScreenGroupColumns) {
    const int64_t end = std::min(columns, begin + kScreenGroupColumns);
    const int64_t group = begin / kScreenGroupColumns;
    const int32_t factor = tables.factors[group];
    if (group < tables.wide_groups) {
      ScanGroup<true>(blocks, begin, end, tables, factor, totals);
    } else {
      ScanGroup<false>(blocks, begin, end, tables, factor, totals);
    }
  }
  for (const Totals& block : totals) {
    alignas(32) int32_t parts[4][8];
    for (int i = 0; i < 4; ++i) {
      _mm256_store_si256(reinterpret_cast<__m256i*>(parts[i]), block.rows[i]);
    }
    StoreSums(parts, sums);
    sums += kScreenBlockRows;
  }
}

[[gnu::target("avx2")]] BlockPeak BoundBlockAvx2(const int32_t* sums, const std::byte* norms,
                                                 const BoundFactors& factors, BlockBounds& bounds) {
  return BoundRows(sums, norms, factors, bounds);
}

bool HasAvx2() {
  static const bool has_avx2 = __builtin_cpu_supports("avx2") != 0;
  return has_avx2;
}

}  // namespace

std::vector<ScanPath> ScanPaths(int64_t columns) {
  std::vector<ScanPath> paths = {{&ScanPairPortably}};
  if (HasAvx2()) paths.push_back({&ScanPairAvx2});
  if (HasAvx512()) paths.push_back({&ScanPairAvx512});
  if (HasAvx512Vbmi() && columns % kScreenQuad == 0) {
    paths.push_back({&ScanPairAvx512Vbmi, /*quads=*/true});
  }
  return paths;
}

std::vector<BoundPath> BoundPaths() {
  std::vector<BoundPath> paths = {&BoundPortably};
  if (HasAvx2()) paths.push_back(&BoundBlockAvx2);
  if (HasAvx512()) paths.push_back(&BoundBlockAvx512);
  return paths;
}

std::vector<BitPath> BitPaths() {
  std::vector<BitPath> paths = {&SumBitsPortably};
  if (HasAvx512Vnni()) paths.push_back(&SumBitsAvx512Vnni);
  return paths;
}
#else
std::vector<ScanPath> ScanPaths(int64_t /*columns*/) { return {{&ScanPairPortably}}; }
std::vector<BoundPath> BoundPaths() { return {&BoundPortably}; }
std::vector<BitPath> BitPaths() { return {&SumBitsPortably}; }
#endif

void InQuads(int64_t columns, std::byte* codes) {
  std::array<std::byte, kScreenQuad * kScreenBlockRows> quad;
  for (int64_t c = 0; c < columns; c += kScreenQuad) {
    std::byte* const here = codes + c * kScreenBlockRows;
    for (int64_t r = 0; r < kScreenBlockRows; ++r) {
      for (int64_t k = 0; k < kScreenQuad; ++k) {
        quad[static_cast<size_t>(kScreenQuad * r + k)] = here[k * kScreenBlockRows + r];
      }
    }
    std::copy(quad.begin(), quad.end(), here);
  }
}

void ArrangeCodes(int64_t columns, std::byte* codes) {
  if (ScanPaths(columns).back().quads) InQuads(columns, codes);
}

void ScanPair(const std::array<const std::byte*, 2>& blocks, int64_t columns,
              const NibbleTables& tables, int32_t* sums) {
  // By whether columns come in quads.
  static const ScanPath kBest[] = {ScanPaths(1).back(), ScanPaths(kScreenQuad).back()};
  kBest[columns % kScreenQuad == 0 ? 1 : 0].scan(blocks, columns, tables, sums);
}

int32_t SumBits(const std::byte* bits, int64_t bytes, const BitWorths& worths) {
  static const BitPath kBest = BitPaths().back();
  return kBest(bits, bytes, worths);
}

BlockPeak BoundBlock(const int32_t* sums, const std::byte* norms, const BoundFactors& factors,
                     BlockBounds& bounds) {
  static const BoundPath kBest = BoundPaths().back();
  return kBest(sums, norms, factors, bounds);
}

}  // namespace renga::engine

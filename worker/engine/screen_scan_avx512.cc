#include "worker/engine/screen_scan_avx512.h"

#if defined(__x86_64__)
#include <immintrin.h>

#include <algorithm>
#include <cstring>

namespace renga::engine {
namespace {

// How far ahead of the codes memory is asked for what follows: blocks lie one after the other.
constexpr int64_t kPrefetchBytes = 2048;

// Sums of bytes by pairs of neighbours, as with AVX2 (screen_scan.cc), for two columns of a block
// at a time, whose sums come together at the end.
struct PairSums {
  __m512i both;
  __m512i odd;
};
struct Totals {
  __m512i rows[4];
};

#define RENGA_AVX512 gnu::target("avx512f,avx512bw"), gnu::always_inline

[[RENGA_AVX512]] inline void Add(__m512i bytes, PairSums& sums) {
  sums.both = _mm512_add_epi16(sums.both, bytes);
  sums.odd = _mm512_add_epi16(sums.odd, _mm512_srli_epi16(bytes, 8));
}

[[RENGA_AVX512]] inline void Flush(const PairSums& sums, int32_t factor, Totals& totals) {
  const __m512i times = _mm512_set1_epi32(factor);
  const __m512i low = _mm512_set1_epi32(0xffff);
  const __m512i even = _mm512_sub_epi16(sums.both, _mm512_slli_epi16(sums.odd, 8));
  const __m512i parts[4] = {_mm512_and_si512(even, low), _mm512_srli_epi32(even, 16),
                            _mm512_and_si512(sums.odd, low), _mm512_srli_epi32(sums.odd, 16)};
  for (int i = 0; i < 4; ++i) {
    totals.rows[i] = _mm512_add_epi32(totals.rows[i], _mm512_mullo_epi32(parts[i], times));
  }
}

// The tables of two columns, of which `there` bytes exist: those of the low halves of bytes, and
// those of the high ones, each beside the 32 rows of its column.
struct ColumnTables {
  __m512i first;
  __m512i second;
};
[[RENGA_AVX512]] inline ColumnTables Tables(const uint8_t* entries, __mmask64 there) {
  const __m512i both = _mm512_maskz_loadu_epi8(there, entries);
  return {_mm512_shuffle_i32x4(both, both, 0xa0), _mm512_shuffle_i32x4(both, both, 0xf5)};
}

template <bool wide>
[[RENGA_AVX512]] inline void ScanGroup(const std::array<const std::byte*, 2>& blocks, int64_t begin,
                                       int64_t end, const NibbleTables& tables, int32_t factor,
                                       std::array<Totals, 2>& totals) {
  const __m512i nibble = _mm512_set1_epi8(15);
  const PairSums none{_mm512_setzero_si512(), _mm512_setzero_si512()};
  PairSums low[2] = {none, none};
  PairSums high[2] = {none, none};
  for (int64_t c = begin; c < end; c += 2) {
    // Behind a last column there is nothing, and entries of 0 add nothing.
    const __mmask64 there = c + 1 < end ? ~__mmask64{0} : __mmask64{0xffffffff};
    const ColumnTables lows = Tables(tables.low.data() + 32 * c, there);
    ColumnTables highs = lows;
    if constexpr (wide) highs = Tables(tables.high.data() + 32 * c, there);
    for (int b = 0; b < 2; ++b) {
      const std::byte* const at = blocks[b] + c * kScreenBlockRows;
      __builtin_prefetch(at + kPrefetchBytes);
      const __m512i bytes = _mm512_maskz_loadu_epi8(there, at);
      const __m512i first = _mm512_and_si512(bytes, nibble);
      const __m512i second = _mm512_and_si512(_mm512_srli_epi16(bytes, 4), nibble);
      Add(_mm512_shuffle_epi8(lows.first, first), low[b]);
      Add(_mm512_shuffle_epi8(lows.second, second), low[b]);
      if constexpr (wide) {
        Add(_mm512_shuffle_epi8(highs.first, first), high[b]);
        Add(_mm512_shuffle_epi8(highs.second, second), high[b]);
      }
    }
  }
  for (int b = 0; b < 2; ++b) {
    Flush(low[b], factor, totals[b]);
    if constexpr (wide) Flush(high[b], 256 * factor, totals[b]);
  }
}

// Columns in quads: vectors hold four columns of 16 rows. Entries are taken from the tables of all
// four at once, and added up over the four, which are neighbours, in 32 bits.
#define RENGA_AVX512_VBMI gnu::target("avx512f,avx512bw,avx512vbmi,avx512vnni"), gnu::always_inline

// Sums of rows 0 to 15 and 16 to 31 of each of two blocks.
struct QuadSums {
  __m512i rows[4];
};

// The tables of four columns: those of the low halves of bytes, and those of the high ones.
[[RENGA_AVX512_VBMI]] inline ColumnTables QuadTables(const uint8_t* entries) {
  const __m512i first = _mm512_loadu_si512(entries);
  const __m512i second = _mm512_loadu_si512(entries + 64);
  return {_mm512_shuffle_i32x4(first, second, 0x88), _mm512_shuffle_i32x4(first, second, 0xdd)};
}

// Adds the entries that the halves of bytes choose.
[[RENGA_AVX512_VBMI]] inline __m512i Chosen(__m512i sums, const ColumnTables& tables, __m512i first,
                                            __m512i second) {
  const __m512i ones = _mm512_set1_epi8(1);
  sums = _mm512_dpbusd_epi32(sums, _mm512_permutexvar_epi8(first, tables.first), ones);
  return _mm512_dpbusd_epi32(sums, _mm512_permutexvar_epi8(second, tables.second), ones);
}

template <bool wide>
[[RENGA_AVX512_VBMI]] inline void ScanQuads(const std::array<const std::byte*, 2>& blocks,
                                            int64_t begin, int64_t end, const NibbleTables& tables,
                                            int32_t factor, QuadSums& totals) {
  const __m512i nibble = _mm512_set1_epi8(15);
  const __m512i table_of_column = _mm512_set1_epi32(0x30201000);
  constexpr int kNibbleOfTable = 0xea;  // (byte & nibble) | table
  const __m512i zero = _mm512_setzero_si512();
  QuadSums low = {{zero, zero, zero, zero}};
  QuadSums high = low;
  for (int64_t c = begin; c < end; c += kScreenQuad) {
    const ColumnTables lows = QuadTables(tables.low.data() + 32 * c);
    ColumnTables highs = lows;
    if constexpr (wide) highs = QuadTables(tables.high.data() + 32 * c);
    for (int part = 0; part < 4; ++part) {
      const std::byte* const at = blocks[part / 2] + c * kScreenBlockRows + part % 2 * 64;
      __builtin_prefetch(at + kPrefetchBytes);
      const __m512i bytes = _mm512_loadu_si512(at);
      const __m512i first =
          _mm512_ternarylogic_epi32(bytes, nibble, table_of_column, kNibbleOfTable);
      const __m512i second = _mm512_ternarylogic_epi32(_mm512_srli_epi16(bytes, 4), nibble,
                                                       table_of_column, kNibbleOfTable);
      low.rows[part] = Chosen(low.rows[part], lows, first, second);
      if constexpr (wide) high.rows[part] = Chosen(high.rows[part], highs, first, second);
    }
  }
  const __m512i times = _mm512_set1_epi32(factor);
  for (int part = 0; part < 4; ++part) {
    __m512i sum = low.rows[part];
    if constexpr (wide) sum = _mm512_add_epi32(sum, _mm512_slli_epi32(high.rows[part], 8));
    totals.rows[part] = _mm512_add_epi32(totals.rows[part], _mm512_mullo_epi32(sum, times));
  }
}
#undef RENGA_AVX512_VBMI

[[RENGA_AVX512]] inline float Most(__m512 first, __m512 second) {
  return _mm512_reduce_max_ps(_mm512_max_ps(first, second));
}
#undef RENGA_AVX512

}  // namespace

bool HasAvx512() {
  static const bool has =
      __builtin_cpu_supports("avx512f") != 0 && __builtin_cpu_supports("avx512bw") != 0;
  return has;
}

bool HasAvx512Vnni() {
  static const bool has = HasAvx512() && __builtin_cpu_supports("avx512vnni") != 0;
  return has;
}

bool HasAvx512Vbmi() {
  static const bool has = HasAvx512Vnni() && __builtin_cpu_supports("avx512vbmi") != 0;
  return has;
}

[[gnu::target("avx512f,avx512bw")]] void ScanPairAvx512(
    const std::array<const std::byte*, 2>& blocks, int64_t columns, const NibbleTables& tables,
    int32_t* sums) {
  const __m512i zero = _mm512_setzero_si512();
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
      _mm256_store_si256(reinterpret_cast<__m256i*>(parts[i]),
                         _mm256_add_epi32(_mm512_castsi512_si256(block.rows[i]),
                                          _mm512_extracti64x4_epi64(block.rows[i], 1)));
    }
    StoreSums(parts, sums);
    sums += kScreenBlockRows;
  }
}

[[gnu::target("avx512f,avx512bw,avx512vbmi,avx512vnni")]] void ScanPairAvx512Vbmi(
    const std::array<const std::byte*, 2>& blocks, int64_t columns, const NibbleTables& tables,
    int32_t* sums) {
  const __m512i zero = _mm512_setzero_si512();
  QuadSums totals = {{zero, zero, zero, zero}};
  for (int64_t begin = 0; begin < columns; begin += kScreenGroupColumns) {
    const int64_t end = std::min(columns, begin + kScreenGroupColumns);
    const int64_t group = begin / kScreenGroupColumns;
    const int32_t factor = tables.factors[group];
    if (group < tables.wide_groups) {
      ScanQuads<true>(blocks, begin, end, tables, factor, totals);
    } else {
      ScanQuads<false>(blocks, begin, end, tables, factor, totals);
    }
  }
  for (int part = 0; part < 4; ++part) _mm512_storeu_si512(sums + 16 * part, totals.rows[part]);
}

// Bits become bytes of 1 and 0, which are multiplied by the worths.
[[gnu::target("avx512f,avx512bw,avx512vnni")]] int32_t SumBitsAvx512Vnni(const std::byte* bits,
                                                                         int64_t bytes,
                                                                         const BitWorths& worths) {
  const __m512i ones = _mm512_set1_epi8(1);
  __m512i low = _mm512_setzero_si512();
  __m512i high = low;
  const int8_t* low_at = worths.low.data();
  const int8_t* high_at = worths.high.data();
  for (int64_t at = 0; at < bytes; at += 8) {
    uint64_t group = 0;
    if (at + 8 <= bytes) {
      std::memcpy(&group, bits + at, sizeof(group));
    } else {
      std::memcpy(&group, bits + at, static_cast<size_t>(bytes - at));
    }
    const __m512i set = _mm512_maskz_mov_epi8(group, ones);
    low = _mm512_dpbusd_epi32(low, set, _mm512_loadu_si512(low_at + 8 * at));
    high = _mm512_dpbusd_epi32(high, set, _mm512_loadu_si512(high_at + 8 * at));
  }
  return _mm512_reduce_add_epi32(_mm512_add_epi32(low, _mm512_slli_epi32(high, 8)));
}

// Products and sums are rounded one by one, as everywhere.
[[gnu::target("avx512f,avx512bw")]] BlockPeak BoundBlockAvx512(const int32_t* sums,
                                                               const std::byte* norms,
                                                               const BoundFactors& factors,
                                                               BlockBounds& bounds) {
  constexpr int64_t kLanes = 16;
  const auto at = [&](int64_t byte) { return reinterpret_cast<const __m128i*>(norms + byte); };
  // The next block's norms: what lies between codes is asked for here.
  for (int64_t line = 0; line < (kErrorNorms + 2) * kScreenBlockRows; line += 64) {
    __builtin_prefetch(norms + kPrefetchBytes + line);
  }
  __m512 estimates[2];
  __m512 uppers[2];
  for (int64_t part = 0; part < 2; ++part) {
    __m512 errors = _mm512_set1_ps(factors.rounding);
    for (int64_t g = 0; g < kErrorNorms; ++g) {
      const __m512i norm =
          _mm512_cvtepu8_epi32(_mm_loadu_si128(at(g * kScreenBlockRows + part * kLanes)));
      errors = _mm512_add_ps(
          errors, _mm512_mul_ps(_mm512_set1_ps(factors.of_norm[g]), _mm512_cvtepi32_ps(norm)));
    }
    const __m512i halves = _mm512_cvtepu16_epi32(_mm256_loadu_si256(
        reinterpret_cast<const __m256i*>(at(kErrorNorms * kScreenBlockRows + 2 * part * kLanes))));
    const __m512 scale = _mm512_castsi512_ps(_mm512_slli_epi32(halves, 16));
    const __m512 sum = _mm512_cvtepi32_ps(_mm512_loadu_si512(sums + part * kLanes));
    const __m512 value = _mm512_add_ps(_mm512_mul_ps(_mm512_set1_ps(factors.unit), sum),
                                       _mm512_set1_ps(factors.base));
    estimates[part] = _mm512_add_ps(_mm512_set1_ps(factors.mean), _mm512_mul_ps(scale, value));
    uppers[part] = _mm512_add_ps(_mm512_add_ps(estimates[part], _mm512_mul_ps(scale, errors)),
                                 _mm512_set1_ps(factors.mean_rounding));
    _mm512_storeu_ps(bounds.estimate.data() + part * kLanes, estimates[part]);
    _mm512_storeu_ps(bounds.upper.data() + part * kLanes, uppers[part]);
  }
  return {.estimate = Most(estimates[0], estimates[1]), .upper = Most(uppers[0], uppers[1])};
}
#undef RENGA_AVX512

}  // namespace renga::engine
#endif

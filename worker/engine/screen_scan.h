// The inner loops of a screen: sums of table entries chosen by the bits of rows, 32 rows side by
// side or one alone, and the bounds that follow from them. Sums are integers and bounds are made of
// the same operations everywhere, so every instruction set gives the same.
#ifndef RENGA_WORKER_ENGINE_SCREEN_SCAN_H_
#define RENGA_WORKER_ENGINE_SCREEN_SCAN_H_

#include <array>
#include <cstddef>
#include <cstdint>
#include <vector>

namespace renga::engine {

// Rows that lie together: byte c of row r is at c * 32 + r, in files.
inline constexpr int64_t kScreenBlockRows = 32;
// Columns of bytes whose tables share a unit.
inline constexpr int64_t kScreenGroupColumns = 32;
// Columns that some processors want beside each other, row by row.
inline constexpr int64_t kScreenQuad = 4;

// A table of 16 entries for every four bits; tables 2c and 2c + 1 belong to the low and high half
// of byte c. Entry i of table t is low[16 t + i], in the first `wide_groups` groups of columns
// + 256 high[16 t + i]; an entry of group g counts factors[g] times. Sums fit 31 bits.
struct NibbleTables {
  std::vector<uint8_t> low;
  std::vector<uint8_t> high;  // of the wide groups alone
  std::vector<int32_t> factors;
  int64_t wide_groups = 0;
};

// Puts the codes of a block, columns one after the other, into the order that ScanPair reads on
// this processor.
void ArrangeCodes(int64_t columns, std::byte* codes);

// sums[32 b + r] = the chosen entries of row r's `columns` bytes, for the 32 rows of each of two
// blocks. Together they share the loads of tables, and wait for memory at the same time.
void ScanPair(const std::array<const std::byte*, 2>& blocks, int64_t columns,
              const NibbleTables& tables, int32_t* sums);

// The forms of it that this processor runs, for tests: the plain one first, the fastest last.
struct ScanPath {
  void (*scan)(const std::array<const std::byte*, 2>& blocks, int64_t columns,
               const NibbleTables& tables, int32_t* sums);
  bool quads = false;  // byte c of row r is at c / 4 * 128 + 4 r + c % 4
};
std::vector<ScanPath> ScanPaths(int64_t columns);
// From columns one after the other, in fours.
void InQuads(int64_t columns, std::byte* codes);

// What each bit of a row is worth, in whole numbers: low + 256 high, for whole groups of 64 bits.
struct BitWorths {
  static constexpr int64_t kGroup = 64;
  static constexpr int32_t kMost = 32639;  // of a worth, either way

  // `worths` are at most kMost, and their sum fits 31 bits.
  explicit BitWorths(const std::vector<int32_t>& worths = {});

  std::vector<int8_t> low;
  std::vector<int8_t> high;
  std::vector<int32_t> nibbles;  // what each value of four bits is worth, 16 for every four
};

// The worths of the bits that are set among `bytes` bytes, the lowest bit of the first byte first.
int32_t SumBits(const std::byte* bits, int64_t bytes, const BitWorths& worths);
// The forms of it, as of ScanPair.
using BitPath = int32_t (*)(const std::byte* bits, int64_t bytes, const BitWorths& worths);
std::vector<BitPath> BitPaths();

inline constexpr int64_t kErrorNorms = 7;  // of as many groups of directions

// What turns sums and stored norms into bounds, the same for all rows:
//   estimate = mean + scale * (unit * sum + base)
//   upper = estimate + scale * (sum of of_norm * norm + rounding) + mean_rounding
struct BoundFactors {
  std::array<float, kErrorNorms> of_norm{};  // what a byte of a norm stands for, at scale 1
  float rounding = 0;                        // at scale 1
  float unit = 0;
  float base = 0;
  float mean = 0;
  float mean_rounding = 0;
};

// Of the rows of a block: about what a logit is, and what it is not above.
struct BlockBounds {
  std::array<float, kScreenBlockRows> estimate;
  std::array<float, kScreenBlockRows> upper;
};

// The largest of a block's rows.
struct BlockPeak {
  float estimate = 0;
  float upper = 0;
};

// `norms` is kErrorNorms x 32 bytes, followed by 32 scales: the upper halves of floats.
BlockPeak BoundBlock(const int32_t* sums, const std::byte* norms, const BoundFactors& factors,
                     BlockBounds& bounds);
// The forms of it, as of ScanPair.
using BoundPath = BlockPeak (*)(const int32_t* sums, const std::byte* norms,
                                const BoundFactors& factors, BlockBounds& bounds);
std::vector<BoundPath> BoundPaths();

}  // namespace renga::engine

#endif  // RENGA_WORKER_ENGINE_SCREEN_SCAN_H_

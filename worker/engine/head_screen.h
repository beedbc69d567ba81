// A screen of an output matrix: a few bits of each row, small enough to keep all rows in memory,
// and a bound on how far a row's logit can be from what these bits say. Rows whose bound stays
// below the best logits found cannot matter, and need not be read.
//
// Rows are turned into the directions in which hidden states vary (the eigenvectors of E[h h'], as
// measured on text), less the mean of all rows, and rounded: 0 to 8 bits for a direction, by how
// much it adds to a logit as a rule, and one scale for the row. What the rounding lost is kept as
// norms of a byte: over six groups of directions, and over all of them weighed by what hidden
// states have there. By Cauchy and Schwarz a logit differs by at most
//   scale * min(sum over groups of norm_g |h_g|, weighed norm * weighed |h|) + rounding,
// and `rounding` counts every sum of floats on the way. A second level has one more bit for each
// direction, and norms of its own.
#ifndef RENGA_WORKER_ENGINE_HEAD_SCREEN_H_
#define RENGA_WORKER_ENGINE_HEAD_SCREEN_H_

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "absl/status/status.h"
#include "base/thread_pool.h"
#include "worker/engine/screen_scan.h"

namespace renga::engine {

// The first direction of group g < kErrorNorms; for kErrorNorms, `width`. Groups are of about the
// same size.
inline int64_t ErrorGroup(int64_t g, int64_t width) { return g * width / kErrorNorms; }

// What all rows of a screen share.
struct ScreenBasis {
  static constexpr uint32_t kNoBit = UINT32_MAX;

  int64_t width = 0;
  std::vector<float> rotation;  // width x width: row j is direction j
  std::vector<float> mean;      // of the rows, along each direction
  std::vector<float> step;      // what a code's unit is worth along each direction, at scale 1
  std::vector<float>
      spread;  // weight of each direction: about what hidden states have there; above 0
  std::vector<uint8_t> bits;  // of the codes along each direction, 0 to 8
  // The bits of a row's codes, four to a table and two tables to a byte: direction * 16 + bit. Bits
  // that weigh alike as a rule are in one group of columns (screen_scan.h).
  std::vector<uint32_t> places;
  std::array<float, 2 * kErrorNorms> norm_units{};  // of a norm's byte: first level, second level
  float norm_ratio = 0;      // no row is longer than this many times its scale
  float rotation_error = 0;  // how far the rotation is from keeping dot products

  int64_t columns() const { return static_cast<int64_t>(places.size()) / 8; }  // bytes of codes
  // 32 rows of the first level: codes (screen_scan.h), norms [kErrorNorms][32], scales [32].
  int64_t block_bytes() const { return (columns() + kErrorNorms + 2) * kScreenBlockRows; }
  // A row's second level: a bit for each direction, norms.
  int64_t sign_bytes() const { return (width + 7) / 8; }
  int64_t fine_bytes() const { return sign_bytes() + kErrorNorms; }
};

// kDataLoss when the parts of a basis that was read from a file do not fit each other.
absl::Status CheckBasis(const ScreenBasis& basis);

// Scales are the upper halves of floats.
const std::byte* ScalePlace(const std::byte* block, int64_t row, const ScreenBasis& basis);
float ScaleOf(const std::byte* block, int64_t row, const ScreenBasis& basis);

struct RowBound {
  float estimate = 0;
  float upper = 0;  // no less than the logit
};

// One hidden state against rows. `hidden` is what the backend multiplies rows by: normed, and
// rounded as it rounds activations.
class ScreenQuery {
 public:
  // `basis` outlives the query. Numbers are finite. `pool` shares the work.
  ScreenQuery(const ScreenBasis* basis, std::span<const float> hidden, base::ThreadPool& pool);

  // For the 32 rows of each of two blocks, in ArrangeCodes' order. Safe from several threads.
  std::array<BlockPeak, 2> Bound(const std::array<const std::byte*, 2>& blocks,
                                 const std::array<BlockBounds*, 2>& bounds) const;
  // A row's bound once its second level is known, from the first level's estimate.
  RowBound Refine(float estimate, float scale, std::span<const std::byte> fine) const;

 private:
  static constexpr int64_t kTableEntries = 16;
  // What four bits add at scale 1, above the least that they can.
  struct TableSums {
    std::array<double, kTableEntries> entries{};
    double least = 0;
    double range = 0;
  };

  void Rotate(std::span<const float> hidden, base::ThreadPool& pool);
  void MakeTables(base::ThreadPool& pool);
  void SumTable(int64_t t, TableSums& table) const;
  void RoundTables(const std::vector<TableSums>& sums, base::ThreadPool& pool);
  // What rounding loses at most.
  double RoundGroup(int64_t group, std::span<const TableSums> sums);
  // What a row's bits of the second level are worth. What rounding loses at most.
  double MakeWorths();
  void SetErrors(int64_t level, double rounding, BoundFactors& factors) const;

  const ScreenBasis& basis_;
  std::vector<double> turned_;  // the hidden state along each direction
  NibbleTables tables_;
  double table_rounding_ = 0;  // at scale 1
  BitWorths worths_;           // of the second level's bits
  BoundFactors first_;
  BoundFactors second_;
};

}  // namespace renga::engine

#endif  // RENGA_WORKER_ENGINE_HEAD_SCREEN_H_

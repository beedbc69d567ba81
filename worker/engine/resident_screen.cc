#include "worker/engine/resident_screen.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <utility>

#include "base/status_macros.h"

namespace renga::engine {
namespace {

int64_t BlocksOf(const model::Range& rows) {
  return (rows.end + kScreenBlockRows - 1) / kScreenBlockRows - rows.begin / kScreenBlockRows;
}

// `bound` plus what is added, rounded up to a float.
float WithAdded(float bound, int32_t id, const ResidentScreen::Added& added) {
  if (!added) return bound;
  const auto sum = static_cast<float>(bound + added(id));
  return std::nextafter(sum, std::numeric_limits<float>::infinity());
}

}  // namespace

ResidentScreen::ResidentScreen(const ScreenBasis* basis, const model::Range& rows,
                               kernels::PageMemory blocks)
    : basis_(*basis),
      rows_(rows),
      first_block_(rows.begin / kScreenBlockRows),
      blocks_(std::move(blocks)),
      bounds_(static_cast<size_t>(BlocksOf(rows))),
      peaks_(bounds_.size()) {}

absl::StatusOr<std::unique_ptr<ResidentScreen>> ResidentScreen::Read(const ScreenFile& file,
                                                                     const model::Range& rows) {
  const int64_t bytes = BlocksOf(rows) * file.basis().block_bytes();
  RENGA_ASSIGN_OR_RETURN(kernels::PageMemory blocks, kernels::PageMemory::Allocate(bytes));
  RENGA_RETURN_IF_ERROR(
      file.ReadBlocks(rows.begin / kScreenBlockRows, {blocks.data(), static_cast<size_t>(bytes)}));
  return std::unique_ptr<ResidentScreen>(
      new ResidentScreen(&file.basis(), rows, std::move(blocks)));
}

int64_t ResidentScreen::ResidentBytes(const ScreenBasis& basis, const model::Range& rows) {
  return BlocksOf(rows) *
         (basis.block_bytes() + static_cast<int64_t>(sizeof(BlockBounds) + sizeof(BlockPeak)));
}

void ResidentScreen::Scan(const ScreenQuery& query, const Added& added, base::ThreadPool& pool) {
  // Pairs lie half the screen apart: memory is read in two places at a time.
  constexpr int64_t kPairsAtOnce = 32;
  const size_t half = (bounds_.size() + 1) / 2;
  pool.ParallelFor(static_cast<int64_t>(half), kPairsAtOnce, [&](int64_t begin, int64_t end) {
    for (auto block = static_cast<size_t>(begin); block < static_cast<size_t>(end); ++block) {
      // The last one may be alone, and is then its own other half.
      const size_t other = block + half < bounds_.size() ? block + half : block;
      const auto peaks =
          query.Bound({Codes(block), Codes(other)}, {&bounds_[block], &bounds_[other]});
      peaks_[block] = peaks[0];
      peaks_[other] = peaks[1];
      if (!added) continue;
      Correct(block, added);
      if (other != block) Correct(other, added);
    }
  });
  // With nothing added only the first block and the last can have rows of others.
  if (!added) {
    Correct(0, added);
    Correct(bounds_.size() - 1, added);
  }
}

void ResidentScreen::Correct(size_t block, const Added& added) {
  BlockBounds& bounds = bounds_[block];
  const int64_t first = (first_block_ + static_cast<int64_t>(block)) * kScreenBlockRows;
  for (int64_t r = 0; r < kScreenBlockRows; ++r) {
    const bool own = first + r >= rows_.begin && first + r < rows_.end;
    if (!own) bounds.estimate[r] = kNothing;
    bounds.upper[r] =
        own ? WithAdded(bounds.upper[r], static_cast<int32_t>(first + r), added) : kNothing;
  }
  BlockPeak& peak = peaks_[block];
  peak.upper = *std::max_element(bounds.upper.begin(), bounds.upper.end());
  peak.estimate = kNothing;
  for (int64_t r = 0; r < kScreenBlockRows; ++r) {
    if (bounds.upper[r] == kNothing) continue;
    peak.estimate = std::max(peak.estimate,
                             WithAdded(bounds.estimate[r], static_cast<int32_t>(first + r), added));
  }
}

std::vector<int32_t> ResidentScreen::Promising(int64_t count, const Added& added) const {
  // The best rows lie in the blocks with the best rows.
  std::vector<size_t> blocks(peaks_.size());
  std::iota(blocks.begin(), blocks.end(), size_t{0});
  const size_t kept = std::min(blocks.size(), static_cast<size_t>(count));
  std::nth_element(blocks.begin(), blocks.begin() + static_cast<int64_t>(kept) - 1, blocks.end(),
                   [&](size_t a, size_t b) { return peaks_[a].estimate > peaks_[b].estimate; });
  blocks.resize(kept);
  std::vector<std::pair<float, int32_t>> rows;
  for (const size_t block : blocks) {
    const int64_t first = (first_block_ + static_cast<int64_t>(block)) * kScreenBlockRows;
    for (int64_t r = 0; r < kScreenBlockRows; ++r) {
      if (bounds_[block].upper[r] == kNothing) continue;
      const auto id = static_cast<int32_t>(first + r);
      rows.emplace_back(WithAdded(bounds_[block].estimate[r], id, added), id);
    }
  }
  const size_t best = std::min(rows.size(), static_cast<size_t>(count));
  std::partial_sort(rows.begin(), rows.begin() + static_cast<int64_t>(best), rows.end(),
                    [](const auto& a, const auto& b) {
                      return a.first != b.first ? a.first > b.first : a.second < b.second;
                    });
  std::vector<int32_t> ids;
  for (size_t i = 0; i < best; ++i) ids.push_back(rows[i].second);
  std::sort(ids.begin(), ids.end());
  return ids;
}

std::vector<int32_t> ResidentScreen::Survivors(float threshold) const {
  std::vector<int32_t> ids;
  for (size_t block = 0; block < peaks_.size(); ++block) {
    if (peaks_[block].upper < threshold) continue;
    const int64_t first = (first_block_ + static_cast<int64_t>(block)) * kScreenBlockRows;
    for (int64_t r = 0; r < kScreenBlockRows; ++r) {
      const float upper = bounds_[block].upper[r];
      if (upper >= threshold && upper != kNothing) ids.push_back(static_cast<int32_t>(first + r));
    }
  }
  return ids;
}

void ResidentScreen::Refine(int32_t id, const ScreenQuery& query, std::span<const std::byte> fine,
                            const Added& added) {
  BlockBounds& bounds = bounds_[BlockOf(id)];
  const size_t row = RowOf(id);
  const float scale = ScaleOf(Codes(BlockOf(id)), static_cast<int64_t>(row), basis_);
  const RowBound bound = query.Refine(bounds.estimate[row], scale, fine);
  bounds.estimate[row] = bound.estimate;
  bounds.upper[row] = WithAdded(bound.upper, id, added);
}

}  // namespace renga::engine

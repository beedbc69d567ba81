#include "worker/engine/resident_screen.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "base/status_macros.h"

namespace renga::engine {
namespace {

int64_t BlocksOf(const model::Range& rows) {
  return (rows.end + kScreenBlockRows - 1) / kScreenBlockRows - rows.begin / kScreenBlockRows;
}

// A float that is no less, whatever the number was rounded to: an error of a few units in the last
// place, or of the smallest number, is made good.
float RoundedUp(double number) {
  const auto near = static_cast<float>(number);
  return near + (std::abs(near) * 0x1p-22F + std::numeric_limits<float>::min());
}

void PrefetchUppers(const BlockBounds& bounds) {
  __builtin_prefetch(bounds.upper.data(), 1);
  __builtin_prefetch(bounds.upper.data() + kScreenBlockRows / 2, 1);
}

float WithNoise(float bound, int32_t id, const ResidentScreen::Noise& noise) {
  return noise.has_value() ? RoundedUp(bound + noise->Of(id)) : bound;
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
  constexpr int64_t kBlocksAtOnce = 1024;
  const int64_t each = file.basis().block_bytes();
  const int64_t stride = Stride(file.basis());
  const int64_t count = BlocksOf(rows);
  RENGA_ASSIGN_OR_RETURN(kernels::PageMemory blocks, kernels::PageMemory::Allocate(count * stride));
  std::vector<std::byte> read;
  for (int64_t first = 0; first < count; first += kBlocksAtOnce) {
    const int64_t end = std::min(first + kBlocksAtOnce, count);
    read.resize(static_cast<size_t>((end - first) * each));
    RENGA_RETURN_IF_ERROR(file.ReadBlocks(rows.begin / kScreenBlockRows + first, read));
    for (int64_t block = first; block < end; ++block) {
      std::byte* const place = blocks.data() + block * stride;
      std::copy_n(read.begin() + (block - first) * each, each, place);
      ArrangeCodes(file.basis().columns(), place);
    }
  }
  return std::unique_ptr<ResidentScreen>(
      new ResidentScreen(&file.basis(), rows, std::move(blocks)));
}

int64_t ResidentScreen::ResidentBytes(const ScreenBasis& basis, const model::Range& rows) {
  return BlocksOf(rows) *
         (Stride(basis) + static_cast<int64_t>(sizeof(BlockBounds) + sizeof(BlockPeak)));
}

void ResidentScreen::Scan(const ScreenQuery& query, const Noise& noise,
                          const model::TokenMask* allowed, base::ThreadPool& pool) {
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
      for (const size_t one : {block, other}) {
        if (noise.has_value()) AddNoise(one, *noise);
        if (allowed != nullptr) KeepAllowed(one, noise, *allowed);
        if (other == block) break;
      }
    }
  });
  Trim(0);
  Trim(bounds_.size() - 1);
}

void ResidentScreen::AddNoise(size_t block, const DrawNoise& noise) {
  BlockBounds& bounds = bounds_[block];
  const auto first =
      static_cast<int32_t>((first_block_ + static_cast<int64_t>(block)) * kScreenBlockRows);
  BlockPeak peak = {.estimate = kNothing, .upper = kNothing};
  for (int32_t r = 0; r < kScreenBlockRows; ++r) {
    const double most = noise.AtMost(first + r);
    bounds.upper[r] = RoundedUp(bounds.upper[r] + most);
    peak.upper = std::max(peak.upper, bounds.upper[r]);
    peak.estimate = std::max(peak.estimate, static_cast<float>(bounds.estimate[r] + most));
  }
  peaks_[block] = peak;
}

void ResidentScreen::KeepAllowed(size_t block, const Noise& noise,
                                 const model::TokenMask& allowed) {
  BlockBounds& bounds = bounds_[block];
  const auto first =
      static_cast<int32_t>((first_block_ + static_cast<int64_t>(block)) * kScreenBlockRows);
  BlockPeak peak = {.estimate = kNothing, .upper = kNothing};
  for (int32_t r = 0; r < kScreenBlockRows; ++r) {
    if (!allowed.Contains(first + r)) {
      bounds.upper[r] = kNothing;
      continue;
    }
    const double most = noise.has_value() ? noise->AtMost(first + r) : 0;
    peak.upper = std::max(peak.upper, bounds.upper[r]);
    peak.estimate = std::max(peak.estimate, static_cast<float>(bounds.estimate[r] + most));
  }
  peaks_[block] = peak;
}

void ResidentScreen::Trim(size_t block) {
  BlockBounds& bounds = bounds_[block];
  const int64_t first = (first_block_ + static_cast<int64_t>(block)) * kScreenBlockRows;
  if (first >= rows_.begin && first + kScreenBlockRows <= rows_.end) return;
  for (int64_t r = 0; r < kScreenBlockRows; ++r) {
    if (first + r < rows_.begin || first + r >= rows_.end) {
      bounds.estimate[r] = bounds.upper[r] = kNothing;
    }
  }
  // A peak may stay that of a row which is out: it only says where to look.
}

std::vector<size_t> ResidentScreen::HighestPeaks(size_t count) const {
  // A heap with the lowest on top, which few blocks get into.
  std::vector<size_t> blocks;
  const auto higher = [&](size_t a, size_t b) { return peaks_[a].estimate > peaks_[b].estimate; };
  for (size_t block = 0; block < peaks_.size(); ++block) {
    if (blocks.size() == count) {
      if (!higher(block, blocks.front())) continue;
      std::pop_heap(blocks.begin(), blocks.end(), higher);
      blocks.pop_back();
    }
    blocks.push_back(block);
    std::push_heap(blocks.begin(), blocks.end(), higher);
  }
  return blocks;
}

std::vector<int32_t> ResidentScreen::Promising(int64_t count, const Noise& noise) const {
  // The best rows lie in the blocks with the best rows. What peaks say of noise is rough.
  constexpr int64_t kMoreBlocks = 8;
  const size_t kept =
      std::min(peaks_.size(), static_cast<size_t>(noise.has_value() ? kMoreBlocks * count : count));
  const std::vector<size_t> blocks = HighestPeaks(kept);
  std::vector<std::pair<float, int32_t>> rows;
  for (const size_t block : blocks) {
    const int64_t first = (first_block_ + static_cast<int64_t>(block)) * kScreenBlockRows;
    for (int64_t r = 0; r < kScreenBlockRows; ++r) {
      if (bounds_[block].upper[r] == kNothing) continue;
      const auto id = static_cast<int32_t>(first + r);
      rows.emplace_back(WithNoise(bounds_[block].estimate[r], id, noise), id);
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

std::vector<int32_t> ResidentScreen::Survivors(float threshold, const Noise& noise,
                                               base::ThreadPool& pool) {
  constexpr size_t kBlocksAtOnce = 512;
  std::vector<std::vector<int32_t>> pieces((peaks_.size() + kBlocksAtOnce - 1) / kBlocksAtOnce);
  pool.ParallelFor(static_cast<int64_t>(pieces.size()), 1, [&](int64_t begin, int64_t end) {
    for (auto piece = static_cast<size_t>(begin); piece < static_cast<size_t>(end); ++piece) {
      pieces[piece] =
          SurvivorsIn(piece * kBlocksAtOnce, std::min((piece + 1) * kBlocksAtOnce, peaks_.size()),
                      threshold, noise);
    }
  });
  std::vector<int32_t> ids;
  for (const std::vector<int32_t>& piece : pieces)
    ids.insert(ids.end(), piece.begin(), piece.end());
  return ids;
}

std::vector<int32_t> ResidentScreen::SurvivorsIn(size_t begin, size_t end, float threshold,
                                                 const Noise& noise) {
  constexpr size_t kAhead = 8;
  std::vector<size_t> blocks;
  for (size_t block = begin; block < end; ++block) {
    if (peaks_[block].upper >= threshold) blocks.push_back(block);
  }
  std::vector<int32_t> ids;
  for (size_t i = 0; i < blocks.size(); ++i) {
    if (i + kAhead < blocks.size()) PrefetchUppers(bounds_[blocks[i + kAhead]]);
    BlockBounds& bounds = bounds_[blocks[i]];
    const int64_t first = (first_block_ + static_cast<int64_t>(blocks[i])) * kScreenBlockRows;
    for (int64_t r = 0; r < kScreenBlockRows; ++r) {
      float& upper = bounds.upper[r];
      if (upper < threshold || upper == kNothing) continue;
      const auto id = static_cast<int32_t>(first + r);
      // What the noise is in place of the most that it could be.
      if (noise.has_value()) upper = RoundedUp(upper - (noise->AtMost(id) - noise->Of(id)));
      if (upper >= threshold) ids.push_back(id);
    }
  }
  return ids;
}

void ResidentScreen::Prefetch(int32_t id) const {
  const BlockBounds& bounds = bounds_[BlockOf(id)];
  __builtin_prefetch(&bounds.estimate[RowOf(id)], 1);
  __builtin_prefetch(&bounds.upper[RowOf(id)], 1);
  __builtin_prefetch(ScalePlace(Codes(BlockOf(id)), static_cast<int64_t>(RowOf(id)), basis_));
}

void ResidentScreen::Refine(int32_t id, const ScreenQuery& query, std::span<const std::byte> fine,
                            const Noise& noise) {
  BlockBounds& bounds = bounds_[BlockOf(id)];
  const size_t row = RowOf(id);
  const float scale = ScaleOf(Codes(BlockOf(id)), static_cast<int64_t>(row), basis_);
  const RowBound bound = query.Refine(bounds.estimate[row], scale, fine);
  bounds.estimate[row] = bound.estimate;
  bounds.upper[row] = WithNoise(bound.upper, id, noise);
}

}  // namespace renga::engine

// The first level of a screen in memory, over a block of vocabulary rows, and what one hidden state
// makes of it: a bound for every row.
#ifndef RENGA_WORKER_ENGINE_RESIDENT_SCREEN_H_
#define RENGA_WORKER_ENGINE_RESIDENT_SCREEN_H_

#include <cstddef>
#include <cstdint>
#include <limits>
#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "absl/status/statusor.h"
#include "base/thread_pool.h"
#include "model/shard_spec.h"
#include "model/token_mask.h"
#include "worker/engine/draw_noise.h"
#include "worker/engine/head_screen.h"
#include "worker/engine/screen_file.h"
#include "worker/kernels/page_memory.h"

namespace renga::engine {

// Not thread-safe.
class ResidentScreen {
 public:
  static constexpr float kNothing = -std::numeric_limits<float>::infinity();

  // Rows are compared by logit + noise; nullopt: by logit alone.
  using Noise = std::optional<DrawNoise>;

  // Rows [rows.begin, rows.end), inside the file's. kDataLoss for a damaged file.
  static absl::StatusOr<std::unique_ptr<ResidentScreen>> Read(const ScreenFile& file,
                                                              const model::Range& rows);
  // What Read will hold.
  static int64_t ResidentBytes(const ScreenBasis& basis, const model::Range& rows);

  // Bounds every row, `query` being of the file's basis; rows that are not `allowed` (null: all
  // are) are out like known ones.
  void Scan(const ScreenQuery& query, const Noise& noise, const model::TokenMask* allowed,
            base::ThreadPool& pool);

  // Of the last Scan: about the `count` rows whose estimates are best, in order of ids.
  std::vector<int32_t> Promising(int64_t count, const Noise& noise) const;
  // Rows whose bounds reach the threshold, in order of ids.
  std::vector<int32_t> Survivors(float threshold, const Noise& noise, base::ThreadPool& pool);
  float upper(int32_t id) const { return bounds_[BlockOf(id)].upper[RowOf(id)]; }

  // A row is known now, and survives nothing.
  void Exclude(int32_t id) { bounds_[BlockOf(id)].upper[RowOf(id)] = kNothing; }
  // Asks memory for what Refine needs of a row.
  void Prefetch(int32_t id) const;
  // Bounds a row anew by its second level. Safe from several threads with different rows.
  void Refine(int32_t id, const ScreenQuery& query, std::span<const std::byte> fine,
              const Noise& noise);

 private:
  ResidentScreen(const ScreenBasis* basis, const model::Range& rows, kernels::PageMemory blocks);

  size_t BlockOf(int32_t id) const {
    return static_cast<size_t>(id / kScreenBlockRows - first_block_);
  }
  static size_t RowOf(int32_t id) { return static_cast<size_t>(id % kScreenBlockRows); }
  const std::byte* Codes(size_t block) const {
    return blocks_.data() + block * static_cast<size_t>(Stride(basis_));
  }
  // From block to block in memory, where they begin at lines of the cache.
  static int64_t Stride(const ScreenBasis& basis) { return (basis.block_bytes() + 63) / 64 * 64; }
  // Of blocks [begin, end).
  std::vector<int32_t> SurvivorsIn(size_t begin, size_t end, float threshold, const Noise& noise);
  // The `count` blocks, above 0, with the best estimates.
  std::vector<size_t> HighestPeaks(size_t count) const;
  // Adds to a block's uppers the most that the noise can be.
  void AddNoise(size_t block, const DrawNoise& noise);
  // Takes out a block's rows that are not allowed, after its noise was added.
  void KeepAllowed(size_t block, const Noise& noise, const model::TokenMask& allowed);
  // Takes out the rows of the first block or the last that are not the head's.
  void Trim(size_t block);

  const ScreenBasis& basis_;
  const model::Range rows_;
  const int64_t first_block_;
  kernels::PageMemory blocks_;
  // By block. Uppers include noise, after a scan the most that it can be; estimates do not.
  // kNothing for rows that are not the head's.
  std::vector<BlockBounds> bounds_;
  std::vector<BlockPeak> peaks_;  // as scanned; uppers only fall after that
};

}  // namespace renga::engine

#endif  // RENGA_WORKER_ENGINE_RESIDENT_SCREEN_H_

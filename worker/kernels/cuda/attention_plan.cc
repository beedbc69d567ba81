#include "worker/kernels/cuda/attention_plan.h"

#include <algorithm>
#include <limits>

#include "absl/strings/str_cat.h"
#include "worker/kernels/cuda/launch_shapes.h"

namespace renga::kernels::cuda {
namespace {

// Tiles that keep any card of the kind this is for busy by themselves.
constexpr int64_t kEnoughWarps = 1024;
// What the parts may take: of what model::ScratchParts calls fixed.
constexpr int64_t kMostPartBytes = int64_t{2} << 20;

void AddSlot(const SequenceSlot& slot, int64_t group, int64_t tile_queries, AttentionPlan& plan) {
  const int64_t queries = slot.row_count * group;
  for (int64_t first = 0; first < queries; first += tile_queries) {
    const int64_t count = std::min(tile_queries, queries - first);
    plan.tiles.push_back({.first_row = static_cast<int32_t>(slot.first_row),
                          .first_block = static_cast<int32_t>(plan.blocks.size()),
                          .first_position = slot.first_position,
                          .first_query = static_cast<int32_t>(first),
                          .queries = static_cast<int32_t>(count)});
    plan.part_queries = std::max(plan.part_queries, count);
  }
  if (queries > 0) plan.blocks.insert(plan.blocks.end(), slot.blocks.begin(), slot.blocks.end());
}

}  // namespace

AttentionPlan PlanAttention(const kernels::AttentionArgs& args, int64_t tile_queries) {
  AttentionPlan plan;
  const int64_t group = args.n_heads / args.cache.n_kv_heads;
  int64_t positions = 0;
  for (const SequenceSlot& slot : args.slots) {
    AddSlot(slot, group, tile_queries, plan);
    if (slot.row_count > 0) positions = std::max(positions, slot.first_position + slot.row_count);
  }
  const int64_t spans = (positions + kSpan - 1) / kSpan;
  const int64_t warps = static_cast<int64_t>(plan.tiles.size()) * args.cache.n_kv_heads;
  const int64_t floats = warps * spans * plan.part_queries * (args.cache.head_dim + 2);
  if (spans > 1 && warps < kEnoughWarps &&
      floats <= kMostPartBytes / static_cast<int64_t>(sizeof(float))) {
    plan.spans = spans;
    plan.part_floats = floats;
  }
  return plan;
}

std::vector<StoredRow> PlanStores(const KvCacheView& cache, std::span<const SequenceSlot> slots) {
  std::vector<StoredRow> rows;
  for (const SequenceSlot& slot : slots) {
    for (int64_t i = 0; i < slot.row_count; ++i) {
      const int64_t position = slot.first_position + i;
      const auto index = static_cast<size_t>(position / cache.block_tokens);
      rows.push_back({.row = static_cast<int32_t>(slot.first_row + i),
                      .block = slot.blocks[index],
                      .token = static_cast<int32_t>(position % cache.block_tokens)});
    }
  }
  return rows;
}

absl::Status CheckCacheLimits(const KvCacheView& cache, std::span<const SequenceSlot> slots) {
  constexpr int64_t kMost = std::numeric_limits<int32_t>::max() / 2;
  if (cache.head_dim > kMostHeadDim) {
    return absl::UnimplementedError(absl::StrCat("the CUDA kernels know heads of at most ",
                                                 kMostHeadDim, " numbers, not of ",
                                                 cache.head_dim));
  }
  for (const SequenceSlot& slot : slots) {
    const int64_t blocks = static_cast<int64_t>(slot.blocks.size());
    if (slot.first_position + slot.row_count > kMost || slot.first_row > kMost ||
        cache.block_tokens > kMost || blocks > kMost / 64) {
      return absl::UnimplementedError("the CUDA kernels count positions in 31 bits");
    }
  }
  return absl::OkStatus();
}

}  // namespace renga::kernels::cuda

// Cuts an attention call into what warps do, and finds where rows are stored. Pure functions.
#ifndef RENGA_WORKER_KERNELS_CUDA_ATTENTION_PLAN_H_
#define RENGA_WORKER_KERNELS_CUDA_ATTENTION_PLAN_H_

#include <cstdint>
#include <span>
#include <vector>

#include "absl/status/status.h"
#include "worker/kernels/backend.h"
#include "worker/kernels/cuda/kernel_list.h"

namespace renga::kernels::cuda {

struct AttentionPlan {
  std::vector<AttentionTile> tiles;
  std::vector<int32_t> blocks;  // of all slots, one after the other
  int64_t spans = 0;            // shared out among warps; 0: each tile has one warp for all
  int64_t part_queries = 0;     // most queries of a tile
  int64_t part_floats = 0;      // of AttentionArgs::parts
};

// `args` has passed CheckAttention; tiles have at most `tile_queries` queries.
AttentionPlan PlanAttention(const kernels::AttentionArgs& args, int64_t tile_queries);

std::vector<StoredRow> PlanStores(const KvCacheView& cache, std::span<const SequenceSlot> slots);

// kUnimplemented for caches that the kernels' 32-bit numbers or registers cannot hold.
absl::Status CheckCacheLimits(const KvCacheView& cache, std::span<const SequenceSlot> slots);

}  // namespace renga::kernels::cuda

#endif  // RENGA_WORKER_KERNELS_CUDA_ATTENTION_PLAN_H_

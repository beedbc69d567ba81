#include "worker/kernels/cuda/attention_calls.h"

#include <algorithm>
#include <vector>

#include "base/status_macros.h"
#include "worker/kernels/cuda/attention_plan.h"
#include "worker/kernels/cuda/kernel_list.h"
#include "worker/kernels/cuda/launch_shapes.h"
#include "worker/kernels/kv_layout.h"
#include "worker/kernels/op_checks.h"

namespace renga::kernels::cuda {
namespace {

// As good as no window: more than there are positions.
constexpr int64_t kNoWindow = int64_t{1} << 40;

KvPlanes PlanesOf(const KvCacheView& cache) {
  return {.keys = reinterpret_cast<uint8_t*>(cache.keys),
          .values = reinterpret_cast<uint8_t*>(cache.values),
          .head_bytes = KvLayout(cache).head_bytes(),
          .block_tokens = cache.block_tokens,
          .kv_heads = cache.n_kv_heads,
          .head_dim = cache.head_dim};
}

KvFormat FormatOf(const KvCacheView& cache) {
  if (cache.type == base::DataType::kF32) return kKvF32;
  return cache.type == base::DataType::kF16 ? kKvF16 : kKvQ8;
}

// The kernel of a KV format and of as many numbers a lane as the head needs.
Kernel AttentionKernel(KvFormat format, int64_t head_dim) {
  constexpr Kernel kFirst[] = {Kernel::kAttention_F16_2, Kernel::kAttention_F32_2,
                               Kernel::kAttention_Q8_2};
  const int step = head_dim <= 64 ? 0 : head_dim <= 128 ? 1 : 2;
  return static_cast<Kernel>(static_cast<int>(kFirst[format]) + step);
}

}  // namespace

// All layers of a step rotate by the same angles: made once.
absl::Status AttentionCalls::PrepareRopeTable(std::span<const int64_t> positions,
                                              const kernels::RopeArgs& args) {
  RENGA_ASSIGN_OR_RETURN(const int64_t* const on_device,
                         positions_.Put(launcher_.device(), positions));
  const RopeKey key = {positions_.changes(), args.dims, args.base, args.position_scale,
                       args.factors};
  if (rope_key_ == key) return absl::OkStatus();
  rope_key_.reset();
  const int64_t rows = static_cast<int64_t>(positions.size());
  const int64_t pairs = args.dims / 2;
  RENGA_ASSIGN_OR_RETURN(std::byte* const memory,
                         rope_.Reserve(launcher_.device(), rows * pairs * 8));
  auto* const table = reinterpret_cast<float*>(memory);
  RENGA_RETURN_IF_ERROR(
      launcher_.LaunchThreads(Kernel::kRopeTable, rows * pairs,
                              RopeTableArgs{.positions = on_device,
                                            .rows = rows,
                                            .pairs = pairs,
                                            .dims = static_cast<double>(args.dims),
                                            .base = args.base,
                                            .position_scale = args.position_scale,
                                            .factors = args.factors,
                                            .table = table}));
  rope_table_ = table;
  rope_key_ = key;
  return absl::OkStatus();
}

absl::Status AttentionCalls::Rope(RowsView rows, std::span<const int64_t> positions,
                                  const kernels::RopeArgs& args) {
  RENGA_RETURN_IF_ERROR(CheckRope(rows, positions, args));
  const int64_t pairs = args.dims / 2;
  const int64_t heads = rows.columns / args.head_dim;
  if (rows.rows * heads * pairs == 0) return absl::OkStatus();
  RENGA_RETURN_IF_ERROR(PrepareRopeTable(positions, args));
  return launcher_.LaunchThreads(Kernel::kRope, rows.rows * heads * pairs,
                                 RopeArgs{.rows = rows.data,
                                          .stride = rows.stride,
                                          .row_count = rows.rows,
                                          .heads = heads,
                                          .head_dim = args.head_dim,
                                          .pairs = pairs,
                                          .neighbours = args.neighbours ? 1 : 0,
                                          .table = rope_table_});
}

absl::Status AttentionCalls::StoreKv(ConstRowsView keys, ConstRowsView values,
                                     const KvCacheView& cache,
                                     std::span<const SequenceSlot> slots) {
  RENGA_RETURN_IF_ERROR(CheckStoreKv(keys, values, cache, slots));
  RENGA_RETURN_IF_ERROR(CheckCacheLimits(cache, slots));
  const std::vector<StoredRow> rows = PlanStores(cache, slots);
  if (rows.empty()) return absl::OkStatus();
  RENGA_ASSIGN_OR_RETURN(const StoredRow* const on_device,
                         stored_rows_.Put(launcher_.device(), std::span(rows)));
  const int64_t row_count = static_cast<int64_t>(rows.size());
  return launcher_.LaunchWarps(Kernel::kStoreKv,
                               row_count * cache.n_kv_heads * Ceil(cache.head_dim, 32),
                               StoreKvArgs{.keys = keys.data,
                                           .key_stride = keys.stride,
                                           .values = values.data,
                                           .value_stride = values.stride,
                                           .cache = PlanesOf(cache),
                                           .format = FormatOf(cache),
                                           .rows = on_device,
                                           .row_count = row_count});
}

absl::Status AttentionCalls::Attention(const kernels::AttentionArgs& args) {
  RENGA_RETURN_IF_ERROR(CheckAttention(args));
  RENGA_RETURN_IF_ERROR(CheckCacheLimits(args.cache, args.slots));
  const int64_t tile_queries = args.cache.head_dim <= 128 ? kQueriesOf<4> : kQueriesOf<8>;
  const AttentionPlan plan = PlanAttention(args, tile_queries);
  if (plan.tiles.empty()) return absl::OkStatus();
  AttentionArgs on_device = {.queries = args.queries.data,
                             .query_stride = args.queries.stride,
                             .out = args.out.data,
                             .out_stride = args.out.stride,
                             .cache = PlanesOf(args.cache),
                             .group = args.n_heads / args.cache.n_kv_heads,
                             .scale = args.scale,
                             .window = args.window > 0 ? args.window : kNoWindow,
                             .tiles = nullptr,
                             .tile_count = static_cast<int64_t>(plan.tiles.size()),
                             .blocks = nullptr,
                             .spans = plan.spans,
                             .part_queries = plan.part_queries,
                             .parts = nullptr};
  RENGA_ASSIGN_OR_RETURN(on_device.tiles, tiles_.Put(launcher_.device(), std::span(plan.tiles)));
  RENGA_ASSIGN_OR_RETURN(on_device.blocks, blocks_.Put(launcher_.device(), std::span(plan.blocks)));
  if (plan.spans > 0) {
    RENGA_ASSIGN_OR_RETURN(std::byte* const parts,
                           parts_.Reserve(launcher_.device(), plan.part_floats * 4));
    on_device.parts = reinterpret_cast<float*>(parts);
  }
  const int64_t warps = on_device.tile_count * args.cache.n_kv_heads;
  const int64_t block_warps = kAttentionThreads / 32;
  RENGA_RETURN_IF_ERROR(launcher_.Launch(
      AttentionKernel(FormatOf(args.cache), args.cache.head_dim),
      {Ceil(warps * std::max<int64_t>(plan.spans, 1), block_warps), 1, kAttentionThreads},
      on_device));
  if (plan.spans == 0) return absl::OkStatus();
  return launcher_.Launch(Kernel::kJoinSpans,
                          {Ceil(warps * plan.part_queries, block_warps), 1, kAttentionThreads},
                          on_device);
}

}  // namespace renga::kernels::cuda

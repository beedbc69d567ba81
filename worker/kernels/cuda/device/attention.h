// Attention over the paged cache.
//
// Positions are cut into spans of kSpan. For one query (a row's head), each span gives its largest
// score, the sum of its exponentials and the weighted sum of its values; spans are joined in order.
// A warp goes through all spans of its queries, or each span has a warp of its own and JoinSpans
// joins them: the same arithmetic, so the same bits, however the context is shared out.
//
// Inside a span, 32 positions at a time: first each lane takes one position (keys lie [number]
// [token], so that lanes read neighbours), then each lane takes a part of the head's numbers
// (values lie [token][number]). A warp's queries share what it reads.
#ifndef RENGA_WORKER_KERNELS_CUDA_DEVICE_ATTENTION_H_
#define RENGA_WORKER_KERNELS_CUDA_DEVICE_ATTENTION_H_

#include <cstdint>

#include "worker/kernels/cuda/device/words.h"
#include "worker/kernels/cuda/kernel_list.h"
#include "worker/kernels/cuda/launch_shapes.h"

namespace renga::kernels::cuda {

// Bits of minus infinity, which a query has as its largest score before it saw any.
RENGA_DEVICE float NoScore() { return BitsToFloat(0xff800000u); }

struct F16Cells {
  RENGA_DEVICE static float Key(const uint8_t* cells, const KvPlanes&, int64_t index, int64_t) {
    return HalfToFloat(LoadOnce(reinterpret_cast<const uint16_t*>(cells) + index));
  }
  RENGA_DEVICE static float Value(const uint8_t* cells, const KvPlanes& cache, int64_t index,
                                  int64_t scale) {
    return Key(cells, cache, index, scale);
  }
};
struct F32Cells {
  RENGA_DEVICE static float Key(const uint8_t* cells, const KvPlanes&, int64_t index, int64_t) {
    return LoadOnce(reinterpret_cast<const float*>(cells) + index);
  }
  RENGA_DEVICE static float Value(const uint8_t* cells, const KvPlanes& cache, int64_t index,
                                  int64_t scale) {
    return Key(cells, cache, index, scale);
  }
};
struct Q8Cells {
  // Byte by byte: where blocks are of odd sizes, the halves lie at odd addresses.
  RENGA_DEVICE static float Key(const uint8_t* cells, const KvPlanes& cache, int64_t index,
                                int64_t scale) {
    const uint8_t* const at = cells + cache.block_tokens * cache.head_dim + 2 * scale;
    const auto half = static_cast<uint16_t>(LoadOnce(at) | LoadOnce(at + 1) << 8);
    const auto code = static_cast<int8_t>(LoadOnce(cells + index));
    return Multiply(HalfToFloat(half), static_cast<float>(code));
  }
  RENGA_DEVICE static float Value(const uint8_t* cells, const KvPlanes& cache, int64_t index,
                                  int64_t scale) {
    return Key(cells, cache, index, scale);
  }
};

// What a query has of the spans so far. A lane has numbers lane + 32 i of the sums.
template <int kNumbers>
struct SpanSums {
  float largest;
  float total;
  float values[kNumbers];
};

template <int kNumbers>
RENGA_DEVICE void ClearSpan(SpanSums<kNumbers>& sums) {
  sums.largest = NoScore();
  sums.total = 0;
  RENGA_UNROLL
  for (int i = 0; i < kNumbers; ++i) sums.values[i] = 0;
}

// exp(a - b) where either may be minus infinity, b being the larger.
RENGA_DEVICE float Shrink(float a, float b) { return a == b ? 1.0f : expf(a - b); }

template <int kNumbers>
RENGA_DEVICE void JoinSpan(const SpanSums<kNumbers>& next, SpanSums<kNumbers>& sums) {
  const float largest = Max(sums.largest, next.largest);
  const float old = Shrink(sums.largest, largest);
  const float fresh = Shrink(next.largest, largest);
  sums.largest = largest;
  sums.total = Fma(next.total, fresh, Multiply(sums.total, old));
  RENGA_UNROLL
  for (int i = 0; i < kNumbers; ++i) {
    sums.values[i] = Fma(next.values[i], fresh, Multiply(sums.values[i], old));
  }
}

// One warp's work: a tile's queries of one KV head.
template <int kQueries>
struct WarpTile {
  int64_t tile;
  int64_t kv_head;
  int64_t begin;                // the first position that its first query sees
  int64_t end;                  // behind the last that its last query sees
  int64_t positions[kQueries];  // of the queries; -1: there is none
  const int32_t* blocks;        // of the sequence
  float* queries;               // shared: [query][head_dim]
  float* weights;               // shared: [query][32]
};

// The first position that a query at `position` sees.
RENGA_DEVICE int64_t FirstSeen(const AttentionArgs& args, int64_t position) {
  return position < args.window ? 0 : position - args.window + 1;
}

RENGA_DEVICE int64_t QueryRow(const AttentionArgs& args, const AttentionTile& tile, int query) {
  return tile.first_row + (tile.first_query + query) / args.group;
}
RENGA_DEVICE int64_t QueryColumn(const AttentionArgs& args, const AttentionTile& tile,
                                 int64_t kv_head, int query) {
  const int64_t head = kv_head * args.group + (tile.first_query + query) % args.group;
  return head * args.cache.head_dim;
}

template <int kQueries>
RENGA_DEVICE WarpTile<kQueries> OpenTile(const AttentionArgs& args, int64_t item, float* shared) {
  WarpTile<kQueries> warp;
  warp.tile = item / args.cache.kv_heads;
  warp.kv_head = item % args.cache.kv_heads;
  const AttentionTile tile = args.tiles[warp.tile];
  warp.blocks = args.blocks + tile.first_block;
  warp.queries = shared;
  warp.weights = shared + kQueries * args.cache.head_dim;
  warp.begin = FirstSeen(args, tile.first_position + tile.first_query / args.group);
  warp.end = 0;
  RENGA_UNROLL
  for (int q = 0; q < kQueries; ++q) {
    warp.positions[q] = -1;
    if (q >= tile.queries) continue;
    warp.positions[q] = tile.first_position + (tile.first_query + q) / args.group;
    warp.end = warp.positions[q] + 1;  // queries are in order of rows
    const float* const from = args.queries + QueryRow(args, tile, q) * args.query_stride +
                              QueryColumn(args, tile, warp.kv_head, q);
    for (int64_t d = Lane(); d < args.cache.head_dim; d += kWarp) {
      warp.queries[q * args.cache.head_dim + d] = Multiply(from[d], args.scale);
    }
  }
  SyncWarp();
  return warp;
}

// Where the sequence's block `index` begins, of this KV head, among the keys or the values.
template <int kQueries>
RENGA_DEVICE int64_t CellsOf(const AttentionArgs& args, const WarpTile<kQueries>& warp, int index) {
  const int64_t block = LoadOnce(warp.blocks + index);
  return (block * args.cache.kv_heads + warp.kv_head) * args.cache.head_bytes;
}

// This lane's position against all queries.
template <class Kv, int kQueries>
RENGA_DEVICE void Score(const AttentionArgs& args, const WarpTile<kQueries>& warp, int64_t position,
                        float (&scores)[kQueries]) {
  RENGA_UNROLL
  for (int q = 0; q < kQueries; ++q) scores[q] = 0;
  if (position >= warp.end || position < warp.begin) return;
  const KvPlanes& cache = args.cache;
  const auto index = static_cast<int>(position) / static_cast<int>(cache.block_tokens);
  const uint8_t* const cells = cache.keys + CellsOf(args, warp, index);
  const int64_t token = position - index * cache.block_tokens;
  RENGA_UNROLL_BY_4
  for (int64_t d = 0; d < cache.head_dim; ++d) {
    const float key = Kv::Key(cells, cache, d * cache.block_tokens + token,
                              d / kWarp * cache.block_tokens + token);
    RENGA_UNROLL
    for (int q = 0; q < kQueries; ++q) {
      scores[q] = Fma(warp.queries[q * cache.head_dim + d], key, scores[q]);
    }
  }
}

// Adds 32 positions' values, by the weights in warp.weights.
template <class Kv, int kQueries, int kNumbers>
RENGA_DEVICE void AddValues(const AttentionArgs& args, const WarpTile<kQueries>& warp,
                            int64_t first, SpanSums<kNumbers> (&sums)[kQueries]) {
  const KvPlanes& cache = args.cache;
  const int64_t groups = (cache.head_dim + kWarp - 1) / kWarp;
  const int64_t end = first + kWarp < warp.end ? first + kWarp : warp.end;
  first = first < warp.begin ? warp.begin : first;
  auto index = static_cast<int>(first) / static_cast<int>(cache.block_tokens);
  int64_t token = first - index * cache.block_tokens;
  const uint8_t* cells = cache.values + CellsOf(args, warp, index);
  for (int64_t position = first; position < end; ++position, ++token) {
    if (token == cache.block_tokens) {
      token = 0;
      cells = cache.values + CellsOf(args, warp, ++index);
    }
    float values[kNumbers];
    RENGA_UNROLL
    for (int i = 0; i < kNumbers; ++i) {
      const int64_t d = Lane() + i * kWarp;
      values[i] = d < cache.head_dim
                      ? Kv::Value(cells, cache, token * cache.head_dim + d, token * groups + i)
                      : 0.0f;
    }
    RENGA_UNROLL
    for (int q = 0; q < kQueries; ++q) {
      // Not only by a weight of zero: a later row's value may be infinite.
      if (position > warp.positions[q] || position < FirstSeen(args, warp.positions[q])) continue;
      const float weight = warp.weights[q * kWarp + position % kWarp];
      RENGA_UNROLL
      for (int i = 0; i < kNumbers; ++i) {
        sums[q].values[i] = Fma(weight, values[i], sums[q].values[i]);
      }
    }
  }
}

template <class Kv, int kQueries, int kNumbers>
RENGA_DEVICE void AttendSpan(const AttentionArgs& args, const WarpTile<kQueries>& warp,
                             int64_t span, SpanSums<kNumbers> (&sums)[kQueries]) {
  RENGA_UNROLL
  for (int q = 0; q < kQueries; ++q) ClearSpan(sums[q]);
  for (int64_t first = span * kSpan; first < (span + 1) * kSpan && first < warp.end;
       first += kWarp) {
    if (first + kWarp <= warp.begin) continue;
    const int64_t position = first + Lane();
    float scores[kQueries];
    Score<Kv, kQueries>(args, warp, position, scores);
    SyncWarp();  // the weights before these have been read
    RENGA_UNROLL
    for (int q = 0; q < kQueries; ++q) {
      const int64_t begin = FirstSeen(args, warp.positions[q]);
      if (first > warp.positions[q] || first + kWarp <= begin) continue;  // alike for all lanes
      const bool seen = position <= warp.positions[q] && position >= begin;
      const float largest = Max(sums[q].largest, WarpMax(seen ? scores[q] : NoScore()));
      const float old = Shrink(sums[q].largest, largest);
      const float weight = seen ? Shrink(scores[q], largest) : 0.0f;
      sums[q].largest = largest;
      sums[q].total = Fma(sums[q].total, old, WarpSum(weight));
      RENGA_UNROLL
      for (int i = 0; i < kNumbers; ++i) {
        sums[q].values[i] = Multiply(sums[q].values[i], old);
      }
      warp.weights[q * kWarp + Lane()] = weight;
    }
    SyncWarp();
    AddValues<Kv, kQueries, kNumbers>(args, warp, first, sums);
  }
}

// Where a query's share of a span lies among the parts: the largest score, the sum, the values.
RENGA_DEVICE float* PartOf(const AttentionArgs& args, int64_t tile, int64_t kv_head, int64_t span,
                           int64_t query) {
  const int64_t warp = (tile * args.cache.kv_heads + kv_head) * args.spans + span;
  return args.parts + (warp * args.part_queries + query) * (args.cache.head_dim + 2);
}

template <int kNumbers>
RENGA_DEVICE void StoreOut(const AttentionArgs& args, const AttentionTile& tile, int64_t kv_head,
                           int query, const SpanSums<kNumbers>& sums) {
  float* const out = args.out + QueryRow(args, tile, query) * args.out_stride +
                     QueryColumn(args, tile, kv_head, query);
  RENGA_UNROLL
  for (int i = 0; i < kNumbers; ++i) {
    const int64_t d = Lane() + i * kWarp;
    if (d < args.cache.head_dim) out[d] = Divide(sums.values[i], sums.total);
  }
}

// Whether a query at `position`, or -1, sees anything of the span.
RENGA_DEVICE bool SeesSpan(const AttentionArgs& args, int64_t position, int64_t span) {
  return span * kSpan <= position && (span + 1) * kSpan > FirstSeen(args, position);
}

// All spans, one after the other.
template <class Kv, int kQueries, int kNumbers>
RENGA_DEVICE void AttendAll(const AttentionArgs& args, const WarpTile<kQueries>& warp) {
  SpanSums<kNumbers> joined[kQueries];
  RENGA_UNROLL
  for (int q = 0; q < kQueries; ++q) ClearSpan(joined[q]);
  for (int64_t span = warp.begin / kSpan; span * kSpan < warp.end; ++span) {
    SpanSums<kNumbers> sums[kQueries];
    AttendSpan<Kv, kQueries, kNumbers>(args, warp, span, sums);
    RENGA_UNROLL
    for (int q = 0; q < kQueries; ++q) {
      if (SeesSpan(args, warp.positions[q], span)) JoinSpan(sums[q], joined[q]);
    }
  }
  const AttentionTile tile = args.tiles[warp.tile];
  RENGA_UNROLL
  for (int q = 0; q < kQueries; ++q) {
    if (warp.positions[q] >= 0) StoreOut(args, tile, warp.kv_head, q, joined[q]);
  }
}

// One span, whose sums go to the parts.
template <class Kv, int kQueries, int kNumbers>
RENGA_DEVICE void AttendOne(const AttentionArgs& args, const WarpTile<kQueries>& warp,
                            int64_t span) {
  if (span * kSpan >= warp.end || (span + 1) * kSpan <= warp.begin) return;
  SpanSums<kNumbers> sums[kQueries];
  AttendSpan<Kv, kQueries, kNumbers>(args, warp, span, sums);
  RENGA_UNROLL
  for (int q = 0; q < kQueries; ++q) {
    if (!SeesSpan(args, warp.positions[q], span)) continue;
    float* const part = PartOf(args, warp.tile, warp.kv_head, span, q);
    if (Lane() == 0) {
      part[0] = sums[q].largest;
      part[1] = sums[q].total;
    }
    RENGA_UNROLL
    for (int i = 0; i < kNumbers; ++i) {
      const int64_t d = Lane() + i * kWarp;
      if (d < args.cache.head_dim) part[2 + d] = sums[q].values[i];
    }
  }
}

// Warps of the grid: tiles x KV heads x spans (1 when each goes through all).
template <class Kv, int kNumbers>
RENGA_DEVICE void Attend(const AttentionArgs& args) {
  constexpr int kQueries = kQueriesOf<kNumbers>;
  constexpr int kWarpFloats = kQueries * (kNumbers * kWarp + kWarp);
  RENGA_SHARED(float, shared, kAttentionThreads / kWarp * kWarpFloats);
  const int64_t spans = args.spans > 0 ? args.spans : 1;
  const int64_t item = BlockX() * (kAttentionThreads / kWarp) + WarpIndex();
  if (item >= args.tile_count * args.cache.kv_heads * spans) return;
  const auto warp = OpenTile<kQueries>(args, item / spans, shared + WarpIndex() * kWarpFloats);
  if (args.spans > 0) {
    AttendOne<Kv, kQueries, kNumbers>(args, warp, item % spans);
  } else {
    AttendAll<Kv, kQueries, kNumbers>(args, warp);
  }
}

// A warp for each query of a tile's KV head.
RENGA_DEVICE void JoinAllSpans(const AttentionArgs& args) {
  constexpr int kNumbers = kMostHeadDim / kWarp;
  const int64_t item = BlockX() * (kAttentionThreads / kWarp) + WarpIndex();
  if (item >= args.tile_count * args.cache.kv_heads * args.part_queries) return;
  const auto query = static_cast<int>(item % args.part_queries);
  const int64_t kv_head = item / args.part_queries % args.cache.kv_heads;
  const int64_t at = item / args.part_queries / args.cache.kv_heads;
  const AttentionTile tile = args.tiles[at];
  if (query >= tile.queries) return;
  const int64_t position = tile.first_position + (tile.first_query + query) / args.group;
  SpanSums<kNumbers> joined;
  ClearSpan(joined);
  for (int64_t span = FirstSeen(args, position) / kSpan; span * kSpan <= position; ++span) {
    const float* const part = PartOf(args, at, kv_head, span, query);
    SpanSums<kNumbers> sums;
    sums.largest = part[0];
    sums.total = part[1];
    RENGA_UNROLL
    for (int i = 0; i < kNumbers; ++i) {
      const int64_t d = Lane() + i * kWarp;
      sums.values[i] = d < args.cache.head_dim ? part[2 + d] : 0.0f;
    }
    JoinSpan(sums, joined);
  }
  StoreOut(args, tile, kv_head, query, joined);
}

}  // namespace renga::kernels::cuda

#endif  // RENGA_WORKER_KERNELS_CUDA_DEVICE_ATTENTION_H_

#include "worker/kernels/reference/reference_ops.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <numeric>
#include <vector>

#include "base/data_type.h"
#include "worker/kernels/kv_layout.h"

namespace renga::kernels::reference {
namespace {

void NormalizeVector(const float* in, int64_t n, const float* weight, float epsilon, float* out) {
  double sum = 0;
  for (int64_t i = 0; i < n; ++i) sum += static_cast<double>(in[i]) * in[i];
  const double scale = 1.0 / std::sqrt(sum / static_cast<double>(n) + epsilon);
  for (int64_t i = 0; i < n; ++i) out[i] = static_cast<float>(in[i] * scale * weight[i]);
}

// The cells of a position's block and KV head.
std::byte* CellsAt(std::byte* cells, const KvCacheView& cache, const SequenceSlot& slot,
                   int64_t position, int64_t kv_head) {
  const int64_t block = slot.blocks[static_cast<size_t>(position / cache.block_tokens)];
  return cells + (block * cache.n_kv_heads + kv_head) * KvLayout(cache).head_bytes();
}

// One head of one row: softmax over the scores of the positions it sees, then the weighted sum.
void AttendHead(const AttentionArgs& args, const SequenceSlot& slot, int64_t position,
                int64_t kv_head, const float* query, float* out) {
  const KvCacheView& cache = args.cache;
  const KvLayout layout(cache);
  const int64_t first = args.window > 0 ? std::max<int64_t>(position - args.window + 1, 0) : 0;
  std::vector<double> weights(static_cast<size_t>(position - first + 1));
  for (int64_t p = first; p <= position; ++p) {
    const std::byte* keys = CellsAt(cache.keys, cache, slot, p, kv_head);
    double sum = 0;
    for (int64_t i = 0; i < cache.head_dim; ++i) {
      sum += static_cast<double>(query[i]) * LoadKey(layout, keys, p % cache.block_tokens, i);
    }
    weights[static_cast<size_t>(p - first)] = sum * args.scale;
  }
  const double best = *std::max_element(weights.begin(), weights.end());
  double total = 0;
  for (double& weight : weights) total += weight = std::exp(weight - best);
  std::vector<double> sums(static_cast<size_t>(cache.head_dim), 0.0);
  for (int64_t p = first; p <= position; ++p) {
    const std::byte* values = CellsAt(cache.values, cache, slot, p, kv_head);
    for (int64_t i = 0; i < cache.head_dim; ++i) {
      sums[static_cast<size_t>(i)] += weights[static_cast<size_t>(p - first)] *
                                      LoadValue(layout, values, p % cache.block_tokens, i);
    }
  }
  for (int64_t i = 0; i < cache.head_dim; ++i) {
    out[i] = static_cast<float>(sums[static_cast<size_t>(i)] / total);
  }
}

}  // namespace

void RmsNorm(ConstRowsView in, const float* weight, float epsilon, RowsView out) {
  for (int64_t r = 0; r < in.rows; ++r) {
    NormalizeVector(in.data + r * in.stride, in.columns, weight, epsilon,
                    out.data + r * out.stride);
  }
}

void HeadRmsNorm(RowsView rows, int64_t head_dim, const float* weight, float epsilon) {
  for (int64_t r = 0; r < rows.rows; ++r) {
    for (int64_t c = 0; c < rows.columns; c += head_dim) {
      float* head = rows.data + r * rows.stride + c;
      NormalizeVector(head, head_dim, weight, epsilon, head);
    }
  }
}

void Rope(RowsView rows, std::span<const int64_t> positions, const RopeArgs& args) {
  const int64_t pairs = args.dims / 2;
  for (int64_t r = 0; r < rows.rows; ++r) {
    const double position = static_cast<double>(positions[static_cast<size_t>(r)]);
    for (int64_t i = 0; i < pairs; ++i) {
      const double exponent = -2.0 * static_cast<double>(i) / static_cast<double>(args.dims);
      const double factor = args.factors != nullptr ? args.factors[i] : 1.0;
      const double angle = position / args.position_scale * std::pow(args.base, exponent) / factor;
      const double cosine = std::cos(angle);
      const double sine = std::sin(angle);
      for (int64_t c = 0; c < rows.columns; c += args.head_dim) {
        float* head = rows.data + r * rows.stride + c;
        float& x = head[args.neighbours ? 2 * i : i];
        float& y = head[args.neighbours ? 2 * i + 1 : i + pairs];
        const double old_x = x;
        const double old_y = y;
        x = static_cast<float>(old_x * cosine - old_y * sine);
        y = static_cast<float>(old_x * sine + old_y * cosine);
      }
    }
  }
}

void StoreKv(ConstRowsView keys, ConstRowsView values, const KvCacheView& cache,
             std::span<const SequenceSlot> slots) {
  for (const SequenceSlot& slot : slots) {
    for (int64_t i = 0; i < slot.row_count; ++i) {
      const float* key = keys.data + (slot.first_row + i) * keys.stride;
      const float* value = values.data + (slot.first_row + i) * values.stride;
      const int64_t position = slot.first_position + i;
      for (int64_t head = 0; head < cache.n_kv_heads; ++head) {
        StoreKvHead(KvLayout(cache), key + head * cache.head_dim, value + head * cache.head_dim,
                    position % cache.block_tokens, CellsAt(cache.keys, cache, slot, position, head),
                    CellsAt(cache.values, cache, slot, position, head));
      }
    }
  }
}

void Attention(const AttentionArgs& args) {
  const int64_t heads_per_kv_head = args.n_heads / args.cache.n_kv_heads;
  for (const SequenceSlot& slot : args.slots) {
    for (int64_t i = 0; i < slot.row_count; ++i) {
      for (int64_t head = 0; head < args.n_heads; ++head) {
        const int64_t row = slot.first_row + i;
        const int64_t column = head * args.cache.head_dim;
        AttendHead(args, slot, slot.first_position + i, head / heads_per_kv_head,
                   args.queries.data + row * args.queries.stride + column,
                   args.out.data + row * args.out.stride + column);
      }
    }
  }
}

void SiluGate(ConstRowsView gate, ConstRowsView up, RowsView out) {
  for (int64_t r = 0; r < gate.rows; ++r) {
    for (int64_t c = 0; c < gate.columns; ++c) {
      const double g = gate.data[r * gate.stride + c];
      out.data[r * out.stride + c] =
          static_cast<float>(g / (1.0 + std::exp(-g)) * up.data[r * up.stride + c]);
    }
  }
}

// gelu(g) = g / 2 * (1 + tanh(u)), u = sqrt(2 / pi) * (g + 0.044715 g^3); written with an
// exponential, which keeps its digits where tanh is close to -1.
void GeluGate(ConstRowsView gate, ConstRowsView up, RowsView out) {
  constexpr double kTwiceRoot = 1.5957691216057308;  // 2 * sqrt(2 / pi)
  for (int64_t r = 0; r < gate.rows; ++r) {
    for (int64_t c = 0; c < gate.columns; ++c) {
      const double g = gate.data[r * gate.stride + c];
      const double twice = kTwiceRoot * g * (1.0 + 0.044715 * g * g);
      out.data[r * out.stride + c] =
          static_cast<float>(g / (1.0 + std::exp(-twice)) * up.data[r * up.stride + c]);
    }
  }
}

void Add(ConstRowsView in, RowsView out) {
  for (int64_t r = 0; r < in.rows; ++r) {
    for (int64_t c = 0; c < in.columns; ++c) {
      out.data[r * out.stride + c] += in.data[r * in.stride + c];
    }
  }
}

TopRow TopK(std::span<const float> logits, int64_t k) {
  // NaN has no place in an order: it counts as the lowest.
  const auto value = [&](int32_t i) {
    const float logit = logits[static_cast<size_t>(i)];
    return std::isnan(logit) ? -std::numeric_limits<float>::infinity() : logit;
  };
  std::vector<int32_t> order(logits.size());
  std::iota(order.begin(), order.end(), 0);
  std::stable_sort(order.begin(), order.end(),
                   [&](int32_t a, int32_t b) { return value(a) > value(b); });
  TopRow row;
  row.max_logit = value(order.front());
  for (const float logit : logits)
    row.sum_exp += std::exp(static_cast<double>(logit) - row.max_logit);
  order.resize(static_cast<size_t>(std::clamp<int64_t>(k, 0, static_cast<int64_t>(order.size()))));
  for (const int32_t i : order) row.logits.push_back(logits[static_cast<size_t>(i)]);
  row.indices = std::move(order);
  return row;
}

}  // namespace renga::kernels::reference

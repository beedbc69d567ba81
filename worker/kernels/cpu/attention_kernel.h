// Attention over the paged cache with an online softmax.
//
// One call computes a few rows of one sequence for the query heads that share a KV head, so that
// each key and value is read and converted once for all of them. For one row and head the order is
// fixed by absolute positions: spans of kAttentionSpan positions, each summed up on its own and
// then joined in order; within a span cache blocks in order; within a block the scores of all
// visible tokens, one maximum, one rescaling of what came before, then the values token by token.
// With a window the tokens before it count for nothing, and blocks that lie before it are passed
// over.
// Neither the number of rows at once, nor the split of a prompt into chunks, nor who computes which
// span can change a bit.
#ifndef RENGA_WORKER_KERNELS_CPU_ATTENTION_KERNEL_H_
#define RENGA_WORKER_KERNELS_CPU_ATTENTION_KERNEL_H_

#include <cstddef>
#include <cstdint>

#include "worker/kernels/cpu/kernel_table.h"
#include "worker/kernels/cpu/unroll.h"
#include "worker/kernels/cpu/vector_math.h"

namespace renga::kernels::cpu {

template <class Isa>
class AttentionKernel {
 public:
  static int64_t ScratchBytes(const AttentionTask& task) {
    return Layout(task).floats * static_cast<int64_t>(sizeof(float));
  }
  static int64_t PartBytes(const AttentionTask& task, int64_t rows) {
    return Layout(task).PartFloats(rows) * static_cast<int64_t>(sizeof(float));
  }

  // All spans, to the output.
  static void Run(const AttentionTask& task, const AttentionRows& rows, std::byte* scratch) {
    AttentionKernel kernel(task, rows, scratch);
    kernel.LoadQueries();
    const int64_t spans = kernel.last_ / kAttentionSpan + 1;
    float* const sum = kernel.memory_ + kernel.layout_.sum;
    kernel.Span(0, sum);
    for (int64_t span = 1; span < spans; ++span) {
      float* const next = kernel.memory_ + kernel.layout_.next;
      kernel.Span(span, next);
      kernel.Join(next, sum);
    }
    kernel.StoreOutputs(sum);
  }

  // One span, to a part of PartBytes.
  static void RunSpan(const AttentionTask& task, const AttentionRows& rows, int64_t span,
                      std::byte* scratch, std::byte* part) {
    AttentionKernel kernel(task, rows, scratch);
    kernel.LoadQueries();
    kernel.Span(span, reinterpret_cast<float*>(part));
  }

  // The parts of all spans, one after the other, to the output. The first is written to.
  static void JoinSpans(const AttentionTask& task, const AttentionRows& rows, int64_t spans,
                        std::byte* scratch, std::byte* parts) {
    AttentionKernel kernel(task, rows, scratch);
    const int64_t each = kernel.layout_.PartFloats(rows.count);
    auto* sum = reinterpret_cast<float*>(parts);
    for (int64_t span = 1; span < spans; ++span) kernel.Join(sum + span * each, sum);
    kernel.StoreOutputs(sum);
  }

 private:
  using F = typename Isa::F;
  using I = typename Isa::I;
  using Math = VectorMath<Isa>;
  static constexpr int64_t kLanes = Isa::kLanes;
  static constexpr float kMinusInfinity = -__builtin_inff();

  static constexpr int64_t RoundUp(int64_t n) { return (n + kLanes - 1) / kLanes * kLanes; }

  // Where things are in the working memory, in floats. Heads and blocks are padded to whole
  // vectors; a "query" is a row and head. A part is, for each of its queries, the sum of weight *
  // value [dims], the sums of weights by token mod kLanes [kLanes], and then for all queries the
  // largest scores.
  struct Layout {
    explicit Layout(const AttentionTask& task)
        : heads(task.heads_per_kv),
          dims(RoundUp(task.head_dim)),
          tokens(RoundUp(task.block_tokens)) {
      const int64_t part = PartFloats(kAttentionRows);
      queries = 0;
      sum = queries + kAttentionRows * heads * dims;
      next = sum + part;
      keys = next + part;
      values = keys + task.head_dim * tokens;
      scores = values + tokens * dims;
      floats = scores + 2 * tokens;
    }
    int64_t PartFloats(int64_t rows) const {
      return rows * heads * (dims + kLanes) + RoundUp(rows * heads);
    }
    int64_t heads;
    int64_t dims;     // of a padded head
    int64_t tokens;   // of a padded block
    int64_t queries;  // [query][dims], scaled
    int64_t sum;      // a part: of the spans so far
    int64_t next;     // a part: of one span
    int64_t keys;     // [head_dim][tokens] of one block
    int64_t values;   // [token][dims]
    int64_t scores;   // [2][tokens]
    int64_t floats;
  };

  AttentionKernel(const AttentionTask& task, const AttentionRows& rows, std::byte* memory)
      : task_(task),
        rows_(rows),
        queries_(rows.count * task.heads_per_kv),
        last_(task.first_position + rows.begin + rows.count - 1),
        layout_(task),
        memory_(reinterpret_cast<float*>(memory)) {}

  // ---- Parts ----------------------------------------------------------------------------------

  float* SumOf(float* part, int64_t query) const { return part + query * layout_.dims; }
  float* WeightsOf(float* part, int64_t query) const {
    return part + queries_ * layout_.dims + query * kLanes;
  }
  float* MaximumOf(float* part, int64_t query) const {
    return part + queries_ * (layout_.dims + kLanes) + query;
  }

  void Clear(float* part) const {
    for (int64_t i = 0; i < queries_ * (layout_.dims + kLanes); i += kLanes) {
      Isa::StoreF(part + i, Isa::ZeroF());
    }
    for (int64_t query = 0; query < queries_; ++query) *MaximumOf(part, query) = kMinusInfinity;
  }

  // sum = sum and next together, as if relative to the larger of their maxima.
  void Join(float* next, float* sum) const {
    for (int64_t query = 0; query < queries_; ++query) {
      const float maximum = *MaximumOf(next, query);
      if (maximum == kMinusInfinity) continue;  // a row that ends before the span
      float* const before = MaximumOf(sum, query);
      const F largest = Isa::MaxF(Isa::SetF(*before), Isa::SetF(maximum));
      const F old_scale = Math::Exp(Isa::SubF(Isa::SetF(*before), largest));
      const F new_scale = Math::Exp(Isa::SubF(Isa::SetF(maximum), largest));
      *before = Isa::LargestF(largest);
      JoinVectors(SumOf(next, query), new_scale, old_scale, layout_.dims, SumOf(sum, query));
      JoinVectors(WeightsOf(next, query), new_scale, old_scale, kLanes, WeightsOf(sum, query));
    }
  }

  static void JoinVectors(const float* next, F new_scale, F old_scale, int64_t n, float* sum) {
    for (int64_t i = 0; i < n; i += kLanes) {
      const F old = Isa::MulF(Isa::LoadF(sum + i), old_scale);
      Isa::StoreF(sum + i, Isa::MulAddF(Isa::LoadF(next + i), new_scale, old));
    }
  }

  // ---- A span ---------------------------------------------------------------------------------

  void Span(int64_t span, float* part) {
    Clear(part);
    const int64_t end = (span + 1) * kAttentionSpan;
    const int64_t last = end - 1 < last_ ? end - 1 : last_;
    // A block across a span's end counts to the span where it begins.
    const int64_t first = (span * kAttentionSpan + task_.block_tokens - 1) / task_.block_tokens;
    const int64_t seen = FirstSeen(task_.first_position + rows_.begin) / task_.block_tokens;
    for (int64_t block = first > seen ? first : seen; block * task_.block_tokens <= last; ++block) {
      Block(block, part);
    }
  }

  void Block(int64_t block, float* part) {
    const int64_t first = block * task_.block_tokens;
    LoadBlock(task_.blocks[block], Visible(first, last_));
    for (int64_t row = 0; row < rows_.count; ++row) {
      const int64_t position = task_.first_position + rows_.begin + row;
      const int64_t visible = Visible(first, position);
      const int64_t seen = FirstSeen(position) - first;
      const int64_t hidden = seen > 0 ? seen : 0;
      if (visible <= hidden) continue;
      int64_t query = row * task_.heads_per_kv;
      const int64_t end = query + task_.heads_per_kv;
      for (; query + 2 <= end; query += 2) Attend<2>(query, hidden, visible, part);
      if (query < end) Attend<1>(query, hidden, visible, part);
    }
  }

  // The first position that a row at `position` sees.
  int64_t FirstSeen(int64_t position) const {
    return task_.window > 0 && position >= task_.window ? position - task_.window + 1 : 0;
  }

  // Tokens of the block starting at position `first` that a row at `position` sees.
  int64_t Visible(int64_t first, int64_t position) const {
    const int64_t visible = position - first + 1;
    return visible < task_.block_tokens ? visible : task_.block_tokens;
  }

  void LoadQueries() {
    const F scale = Isa::SetF(task_.scale);
    for (int64_t query = 0; query < queries_; ++query) {
      const float* in = task_.queries + RowOf(query) * task_.query_stride + ColumnOf(query);
      float* out = memory_ + layout_.queries + query * layout_.dims;
      for (int64_t d = 0; d < layout_.dims; d += kLanes) {
        Isa::StoreF(out + d, Isa::MulF(LoadFloats(in, d, task_.head_dim), scale));
      }
    }
  }

  int64_t RowOf(int64_t query) const { return rows_.begin + query / task_.heads_per_kv; }
  int64_t ColumnOf(int64_t query) const {
    return (rows_.kv_head * task_.heads_per_kv + query % task_.heads_per_kv) * task_.head_dim;
  }

  // ---- From the cache: rows of `n` numbers as floats, padded with zeros ------------------------

  // kLanes numbers from `i` on.
  static F LoadFloats(const float* row, int64_t i, int64_t n) {
    if (i + kLanes <= n) return Isa::LoadF(row + i);
    return Math::LoadFirst(row + i, n - i);
  }
  static F LoadHalves(const std::byte* row, int64_t i, int64_t n) {
    if (i + kLanes <= n) return Isa::LoadHalf(row + 2 * i);
    std::byte last[2 * kLanes] = {};
    for (int64_t b = 0; b < 2 * (n - i); ++b) last[b] = row[2 * i + b];
    return Isa::LoadHalf(last);
  }
  static F LoadCodes(const std::byte* row, int64_t i, int64_t n) {
    if (i + kLanes <= n) return Isa::ToF(Isa::WidenS8(row + i));
    std::byte last[kLanes] = {};
    for (int64_t b = 0; b < n - i; ++b) last[b] = row[i + b];
    return Isa::ToF(Isa::WidenS8(last));
  }
  F LoadCells(const std::byte* cells, int64_t first, int64_t i, int64_t n) const {
    switch (task_.cells) {
      case KvCells::kFloats:
        return LoadFloats(reinterpret_cast<const float*>(cells) + first, i, n);
      case KvCells::kHalves:
        return LoadHalves(cells + 2 * first, i, n);
      case KvCells::kCodes:
        return LoadCodes(cells + first, i, n);
    }
    return Isa::ZeroF();
  }

  // The block's keys, and its first `visible` values, as floats.
  void LoadBlock(int64_t block, int64_t visible) {
    const int64_t offset = (block * task_.kv_heads + rows_.kv_head) * task_.head_bytes;
    LoadKeys(task_.keys + offset);
    LoadValues(task_.values + offset, visible);
  }

  void LoadKeys(const std::byte* cells) {
    const int64_t tokens = task_.block_tokens;
    const std::byte* scales = cells + tokens * task_.head_dim;
    float* out = memory_ + layout_.keys;
    for (int64_t d = 0; d < task_.head_dim; ++d, out += layout_.tokens) {
      for (int64_t t = 0; t < layout_.tokens; t += kLanes) {
        F keys = LoadCells(cells, d * tokens, t, tokens);
        if (task_.cells == KvCells::kCodes) {
          const int64_t group = d / task_.scale_elements;
          keys = Isa::MulF(keys, LoadHalves(scales + 2 * group * tokens, t, tokens));
        }
        Isa::StoreF(out + t, keys);
      }
    }
  }

  void LoadValues(const std::byte* cells, int64_t visible) {
    const int64_t groups = (task_.head_dim + task_.scale_elements - 1) / task_.scale_elements;
    const std::byte* scales = cells + task_.block_tokens * task_.head_dim;
    float* out = memory_ + layout_.values;
    for (int64_t t = 0; t < visible; ++t, out += layout_.dims) {
      for (int64_t d = 0; d < layout_.dims; d += kLanes) {
        F values = LoadCells(cells, t * task_.head_dim, d, task_.head_dim);
        if (task_.cells == KvCells::kCodes) {
          const int64_t group = t * groups + d / task_.scale_elements;
          values = Isa::MulF(values, ScaleAt(scales + 2 * group));
        }
        Isa::StoreF(out + d, values);
      }
    }
  }

  // A half in every lane. A vector never straddles two groups of 32 numbers.
  static F ScaleAt(const std::byte* scale) {
    std::byte halves[2 * kLanes];
    for (int64_t i = 0; i < kLanes; ++i) {
      halves[2 * i] = scale[0];
      halves[2 * i + 1] = scale[1];
    }
    return Isa::LoadHalf(halves);
  }

  // ---- A block --------------------------------------------------------------------------------

  // Takes tokens [hidden, visible) of the loaded block into the part's sums of `heads` queries of a
  // row.
  template <int heads>
  void Attend(int64_t query, int64_t hidden, int64_t visible, float* part) {
    int64_t t = 0;
    for (; t + 4 * kLanes <= visible; t += 4 * kLanes) ScoreTile<heads, 4>(query, t);
    for (; t < visible; t += kLanes) ScoreTile<heads, 1>(query, t);
    F rescale[heads];
    for (int h = 0; h < heads; ++h) rescale[h] = Weigh(query + h, hidden, visible, Scores(h), part);
    int64_t d = 0;
    for (; d + 4 * kLanes <= layout_.dims; d += 4 * kLanes) {
      AddValues<heads, 4>(query, hidden, visible, d, rescale, part);
    }
    for (; d < layout_.dims; d += kLanes) {
      AddValues<heads, 1>(query, hidden, visible, d, rescale, part);
    }
  }

  float* Scores(int h) { return memory_ + layout_.scores + h * layout_.tokens; }

  // scores[h][t] = query h * key t, one token per lane: over the head in order.
  template <int heads, int vectors>
  void ScoreTile(int64_t query, int64_t t) {
    const float* queries = memory_ + layout_.queries + query * layout_.dims;
    const float* keys = memory_ + layout_.keys + t;
    F dots[heads][vectors];
    Unroll<heads * vectors>(
        [&](auto i) RENGA_INLINE_LAMBDA { dots[i / vectors][i % vectors] = Isa::ZeroF(); });
    for (int64_t d = 0; d < task_.head_dim; ++d, keys += layout_.tokens) {
      F key[vectors];
      Unroll<vectors>([&](auto v) RENGA_INLINE_LAMBDA { key[v] = Isa::LoadF(keys + v * kLanes); });
      Unroll<heads>([&](auto h) RENGA_INLINE_LAMBDA {
        const F q = Isa::SetF(queries[h * layout_.dims + d]);
        Unroll<vectors>(
            [&](auto v) RENGA_INLINE_LAMBDA { dots[h][v] = Isa::MulAddF(q, key[v], dots[h][v]); });
      });
    }
    Unroll<heads * vectors>([&](auto i) RENGA_INLINE_LAMBDA {
      constexpr int h = i / vectors, v = i % vectors;
      Isa::StoreF(Scores(h) + t + v * kLanes, dots[h][v]);
    });
  }

  // Turns a query's scores into weights relative to the largest score so far, adds them up, and
  // returns what earlier sums must be multiplied by.
  F Weigh(int64_t query, int64_t hidden, int64_t visible, float* scores, float* part) {
    for (int64_t t = 0; t < hidden; ++t) scores[t] = kMinusInfinity;
    for (int64_t t = visible; t < layout_.tokens; ++t) scores[t] = kMinusInfinity;
    float& maximum = *MaximumOf(part, query);
    F largest = Isa::SetF(maximum);
    const F before = largest;
    for (int64_t t = 0; t < visible; t += kLanes) {
      largest = Isa::MaxF(largest, Isa::LoadF(scores + t));
    }
    maximum = Isa::LargestF(largest);
    const F now = Isa::SetF(maximum);
    const F rescale = Math::Exp(Isa::SubF(before, now));
    float* weights = WeightsOf(part, query);
    F sum = Isa::MulF(Isa::LoadF(weights), rescale);
    for (int64_t t = 0; t < visible; t += kLanes) {
      const F weight = Math::Exp(Isa::SubF(Isa::LoadF(scores + t), now));
      Isa::StoreF(scores + t, weight);
      sum = Isa::AddF(sum, weight);
    }
    Isa::StoreF(weights, sum);
    return rescale;
  }

  // sums = sums * rescale, then + weight * value token by token, for `vectors` vectors of a head.
  template <int heads, int vectors>
  void AddValues(int64_t query, int64_t hidden, int64_t visible, int64_t d, const F* rescale,
                 float* part) {
    float* out = SumOf(part, query) + d;
    F sums[heads][vectors];
    Unroll<heads * vectors>([&](auto i) RENGA_INLINE_LAMBDA {
      constexpr int h = i / vectors, v = i % vectors;
      sums[h][v] = Isa::MulF(Isa::LoadF(out + h * layout_.dims + v * kLanes), rescale[h]);
    });
    const float* values = memory_ + layout_.values + hidden * layout_.dims + d;
    for (int64_t t = hidden; t < visible; ++t, values += layout_.dims) {
      F value[vectors];
      Unroll<vectors>([&](auto v)
                          RENGA_INLINE_LAMBDA { value[v] = Isa::LoadF(values + v * kLanes); });
      Unroll<heads>([&](auto h) RENGA_INLINE_LAMBDA {
        const F weight = Isa::SetF(Scores(h)[t]);
        Unroll<vectors>([&](auto v) RENGA_INLINE_LAMBDA {
          sums[h][v] = Isa::MulAddF(weight, value[v], sums[h][v]);
        });
      });
    }
    Unroll<heads * vectors>([&](auto i) RENGA_INLINE_LAMBDA {
      constexpr int h = i / vectors, v = i % vectors;
      Isa::StoreF(out + h * layout_.dims + v * kLanes, sums[h][v]);
    });
  }

  void StoreOutputs(float* part) {
    for (int64_t query = 0; query < queries_; ++query) {
      float* out = task_.out + RowOf(query) * task_.out_stride + ColumnOf(query);
      const float* sums = SumOf(part, query);
      const float total = Isa::SumF(Isa::LoadF(WeightsOf(part, query)));
      const F inverse = Isa::SetF(1.0f / total);
      for (int64_t d = 0; d < task_.head_dim; d += kLanes) {
        const F result = Isa::MulF(Isa::LoadF(sums + d), inverse);
        if (d + kLanes <= task_.head_dim) {
          Isa::StoreF(out + d, result);
        } else {
          Math::StoreFirst(out + d, task_.head_dim - d, result);
        }
      }
    }
  }

  const AttentionTask& task_;
  const AttentionRows& rows_;
  const int64_t queries_;
  const int64_t last_;  // the last row's position
  const Layout layout_;
  float* const memory_;
};

}  // namespace renga::kernels::cpu

#endif  // RENGA_WORKER_KERNELS_CPU_ATTENTION_KERNEL_H_

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

  // The next block's cells, which are asked for line by line while this one's are used for the
  // first heads: a block is too short for the processor to see that it is read in order. Evenly,
  // as only so many lines can be on their way to a core at a time.
  struct Ask {
    const std::byte* keys = nullptr;
    const std::byte* values = nullptr;
    int64_t key_bytes = 0;     // of a head's number, for all tokens; 0: asked for
    int64_t value_bytes = 0;   // of a token; 0: asked for
    int64_t vector_bytes = 0;  // of kLanes of its numbers
  };
  static void Prefetch(const std::byte* cells, int64_t bytes) {
    constexpr int64_t kLine = 64;
    for (int64_t byte = 0; byte < bytes; byte += kLine) __builtin_prefetch(cells + byte, 0, 2);
  }

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
      maxima = scores + heads * tokens;
      rescales = maxima + RoundUp(heads);
      floats = rescales + RoundUp(heads);
    }
    // The largest scores of a row's queries are read in whole vectors, from any query on.
    int64_t PartFloats(int64_t rows) const {
      return rows * heads * (dims + kLanes) + RoundUp(rows * heads) + kLanes;
    }
    int64_t heads;
    int64_t dims;      // of a padded head
    int64_t tokens;    // of a padded block
    int64_t queries;   // [query][dims], scaled
    int64_t sum;       // a part: of the spans so far
    int64_t next;      // a part: of one span
    int64_t keys;      // [head_dim][tokens] of one block
    int64_t values;    // [token][dims]
    int64_t scores;    // [head][tokens] of one row, then its weights
    int64_t maxima;    // [head]: the largest of a row's scores so far
    int64_t rescales;  // [head]: what a row's earlier sums are multiplied by
    int64_t floats;
  };

  AttentionKernel(const AttentionTask& task, const AttentionRows& rows, std::byte* memory)
      : task_(task),
        rows_(rows),
        queries_(rows.count * task.heads_per_kv),
        last_(task.first_position + rows.begin + rows.count - 1),
        layout_(task),
        memory_(reinterpret_cast<float*>(memory)),
        key_bytes_(task.head_bytes / task.head_dim),
        value_bytes_(task.head_bytes / task.block_tokens),
        vector_bytes_(value_bytes_ * kLanes / task.head_dim),
        as_they_lie_(rows.count == 1 && task.heads_per_kv <= Isa::kAttentionHeads &&
                     layout_.dims == task.head_dim && layout_.tokens == task.block_tokens) {
    for (int64_t head = 0; head < RoundUp(task.heads_per_kv); ++head) Maxima()[head] = 0;
  }

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
    for (int64_t i = 0; i < RoundUp(queries_) + kLanes; ++i) *MaximumOf(part, i) = kMinusInfinity;
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
      Block(block, part, (block + 1) * task_.block_tokens <= last_);
    }
  }

  void Block(int64_t block, float* part, bool more) {
    ask_ = more ? AskFor(OffsetOf(task_.blocks[block + 1])) : Ask();
    const int64_t offset = OffsetOf(task_.blocks[block]);
    switch (task_.cells) {
      case KvCells::kFloats:
        return BlockOf<KvCells::kFloats>(block, offset, part);
      case KvCells::kHalves:
        return BlockOf<KvCells::kHalves>(block, offset, part);
      case KvCells::kCodes:
        return BlockOf<KvCells::kCodes>(block, offset, part);
    }
  }

  template <KvCells kind>
  void BlockOf(int64_t block, int64_t offset, float* part) {
    const int64_t first = block * task_.block_tokens;
    const Cells<kind> cells(task_, offset);
    if (as_they_lie_) return AttendRow(cells, 0, first, part);
    LoadKeys(cells);
    LoadValues(cells, Visible(first, last_));
    for (int64_t row = 0; row < rows_.count; ++row) {
      AttendRow(Floats(layout_, memory_), row, first, part);
    }
  }

  // Takes what a row sees of the block that begins at position `first` into the part.
  template <class Block>
  void AttendRow(Block block, int64_t row, int64_t first, float* part) {
    const int64_t position = task_.first_position + rows_.begin + row;
    const int64_t visible = Visible(first, position);
    const int64_t seen = FirstSeen(position) - first;
    const int64_t hidden = seen > 0 ? seen : 0;
    if (visible > hidden) Attend(block, row * task_.heads_per_kv, hidden, visible, part);
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

  // ---- From the cache -------------------------------------------------------------------------

  // kLanes numbers of a row of `n` from `i` on, padded with zeros.
  static F LoadFloats(const float* row, int64_t i, int64_t n) {
    if (i + kLanes <= n) return Isa::LoadF(row + i);
    return Math::LoadFirst(row + i, n - i);
  }

  int64_t OffsetOf(int64_t block) const {
    return (block * task_.kv_heads + rows_.kv_head) * task_.head_bytes;
  }

  Ask AskFor(int64_t offset) const {
    return {.keys = task_.keys + offset,
            .values = task_.values + offset,
            .key_bytes = key_bytes_,
            .value_bytes = value_bytes_,
            .vector_bytes = vector_bytes_};
  }

  // A block's keys and values as they lie in the cache, converted as often as they are read: for
  // one row, whose heads are all in registers at a time.
  template <KvCells kind>
  struct Cells {
    static constexpr int64_t kCellBytes = kind == KvCells::kFloats   ? 4
                                          : kind == KvCells::kHalves ? 2
                                                                     : 1;
    Cells(const AttentionTask& task, int64_t offset)
        : tokens(task.block_tokens),
          dims(task.head_dim),
          groups((task.head_dim + kAttentionScaled - 1) / kAttentionScaled),
          keys(task.keys + offset),
          values(task.values + offset) {}

    // Number d of the keys of tokens [t, t + kLanes); numbers [d, d + kLanes) of a token's value.
    // Only the first `n` tokens, or numbers, are there; zeros stand for the others.
    F Key(int64_t d, int64_t t, int64_t n = kLanes) const {
      const F key = Load(keys + (d * tokens + t) * kCellBytes, n);
      if constexpr (kind != KvCells::kCodes) return key;
      const std::byte* scales = keys + tokens * dims;
      return Isa::MulF(key, LoadHalves(scales + 2 * (d / kAttentionScaled * tokens + t), n));
    }
    F Value(int64_t t, int64_t d, int64_t n = kLanes) const {
      const F value = Load(values + (t * dims + d) * kCellBytes, n);
      if constexpr (kind != KvCells::kCodes) return value;
      const std::byte* scales = values + tokens * dims;
      return Isa::MulF(value, SetHalf(scales + 2 * (t * groups + d / kAttentionScaled)));
    }

    static F Load(const std::byte* cells, int64_t n) {
      if (n < kLanes) return LoadPart(cells, n);
      if constexpr (kind == KvCells::kFloats)
        return Isa::LoadF(reinterpret_cast<const float*>(cells));
      if constexpr (kind == KvCells::kHalves) return Isa::LoadHalf(cells);
      if constexpr (kind == KvCells::kCodes) return Isa::ToF(Isa::WidenS8(cells));
    }
    static F LoadPart(const std::byte* cells, int64_t n) {
      std::byte part[kCellBytes * kLanes] = {};
      for (int64_t b = 0; b < kCellBytes * n; ++b) part[b] = cells[b];
      return Load(part, kLanes);
    }
    static F LoadHalves(const std::byte* halves, int64_t n) {
      return Cells<KvCells::kHalves>::Load(halves, n);
    }
    // A half in every lane. A vector never straddles two groups of numbers.
    static F SetHalf(const std::byte* half) {
      std::byte halves[2 * kLanes];
      for (int64_t i = 0; i < kLanes; ++i) {
        halves[2 * i] = half[0];
        halves[2 * i + 1] = half[1];
      }
      return Isa::LoadHalf(halves);
    }

    int64_t tokens;
    int64_t dims;
    int64_t groups;
    const std::byte* keys;    // [head_dim][tokens], then the scales [group][tokens]
    const std::byte* values;  // [token][head_dim], then the scales [token][group]
  };

  // The same in the working memory, converted once for several rows or groups of heads.
  struct Floats {
    Floats(const Layout& layout, const float* memory)
        : tokens(layout.tokens),
          dims(layout.dims),
          keys(memory + layout.keys),
          values(memory + layout.values) {}
    F Key(int64_t d, int64_t t) const { return Isa::LoadF(keys + d * tokens + t); }
    F Value(int64_t t, int64_t d) const { return Isa::LoadF(values + t * dims + d); }

    int64_t tokens;
    int64_t dims;
    const float* keys;
    const float* values;
  };

  // The block's keys, and its first `visible` values, to the working memory. Sizes are copied
  // first: to the compiler, storing a vector may change any of them.
  template <KvCells kind>
  void LoadKeys(Cells<kind> cells) {
    const int64_t padded = layout_.tokens;
    float* out = memory_ + layout_.keys;
    for (int64_t d = 0; d < cells.dims; ++d, out += padded) {
      for (int64_t t = 0; t < padded; t += kLanes) {
        Isa::StoreF(out + t, cells.Key(d, t, cells.tokens - t));
      }
    }
  }

  template <KvCells kind>
  void LoadValues(Cells<kind> cells, int64_t visible) {
    const int64_t padded = layout_.dims;
    float* out = memory_ + layout_.values;
    for (int64_t t = 0; t < visible; ++t, out += padded) {
      for (int64_t d = 0; d < padded; d += kLanes) {
        Isa::StoreF(out + d, cells.Value(t, d, cells.dims - d));
      }
    }
  }

  // ---- A block --------------------------------------------------------------------------------

  // Takes tokens [hidden, visible) of a block into the part's sums of the queries of a row, `query`
  // the first. Each step is done for all heads before the next one: heads do not wait for each
  // other, so the processor works on several at a time.
  template <class Block>
  void Attend(Block block, int64_t query, int64_t hidden, int64_t visible, float* part) {
    ForHeads([&]<int heads>(int64_t head) RENGA_INLINE_LAMBDA {
      int64_t t = ScoreTiles<heads, kVectors<heads>>(block, query, head, 0, visible);
      t = ScoreTiles<heads, 2>(block, query, head, t, visible);
      for (; t < visible; t += kLanes) ScoreTile<heads, 1>(block, query, head, t);
    });
    Weigh(query, hidden, visible, part);
    ForHeads([&]<int heads>(int64_t head) RENGA_INLINE_LAMBDA {
      constexpr int kAtOnce = kVectors<heads>;
      int64_t d = 0;
      for (; d + kAtOnce * kLanes <= layout_.dims; d += kAtOnce * kLanes) {
        AddValues<heads, kAtOnce>(block, query, head, hidden, visible, d, part);
      }
      for (; d < layout_.dims; d += kLanes) {
        AddValues<heads, 1>(block, query, head, hidden, visible, d, part);
      }
    });
    ask_ = Ask();
  }

  // Vectors of sums that registers hold for each of so many heads.
  template <int heads>
  static constexpr int kVectors = heads > 2 && heads == Isa::kAttentionHeads ? 2 : 4;

  // body.operator()<heads>(first) for all heads of a row, as many at a time as registers hold.
  template <int heads = Isa::kAttentionHeads, class Body>
  void ForHeads(const Body& body, int64_t head = 0) {
    for (; head + heads <= task_.heads_per_kv; head += heads) body.template operator()<heads>(head);
    if constexpr (heads > 1) ForHeads<heads / 2>(body, head);
  }

  float* Scores(int64_t head) { return memory_ + layout_.scores + head * layout_.tokens; }
  float* Maxima() { return memory_ + layout_.maxima; }
  float* Rescales() { return memory_ + layout_.rescales; }

  template <int heads, int vectors, class Block>
  int64_t ScoreTiles(Block block, int64_t query, int64_t head, int64_t t, int64_t visible) {
    for (; t + vectors * kLanes <= visible; t += vectors * kLanes) {
      ScoreTile<heads, vectors>(block, query, head, t);
    }
    return t;
  }

  // scores[head + h][t] = query (query + head + h) * key t, one token per lane: over the head's
  // numbers in order.
  template <int heads, int vectors, class Block>
  void ScoreTile(Block block, int64_t query, int64_t head, int64_t t) {
    const float* queries = memory_ + layout_.queries + (query + head) * layout_.dims;
    const int64_t dims = layout_.dims, end = task_.head_dim;
    const Ask ask = ask_;
    F dots[heads][vectors];
    Unroll<heads * vectors>(
        [&](auto i) RENGA_INLINE_LAMBDA { dots[i / vectors][i % vectors] = Isa::ZeroF(); });
    for (int64_t d = 0; d < end; ++d) {
      Prefetch(ask.keys + d * ask.key_bytes, ask.key_bytes);
      F key[vectors];
      Unroll<vectors>([&](auto v) RENGA_INLINE_LAMBDA { key[v] = block.Key(d, t + v * kLanes); });
      Unroll<heads>([&](auto h) RENGA_INLINE_LAMBDA {
        const F q = Isa::SetF(queries[h * dims + d]);
        Unroll<vectors>(
            [&](auto v) RENGA_INLINE_LAMBDA { dots[h][v] = Isa::MulAddF(q, key[v], dots[h][v]); });
      });
    }
    ask_.key_bytes = 0;
    Unroll<heads * vectors>([&](auto i) RENGA_INLINE_LAMBDA {
      constexpr int h = i / vectors, v = i % vectors;
      Isa::StoreF(Scores(head + h) + t + v * kLanes, dots[h][v]);
    });
  }

  // Turns a row's scores into weights relative to the largest of each head so far, adds them up,
  // and notes what earlier sums must be multiplied by.
  void Weigh(int64_t query, int64_t hidden, int64_t visible, float* part) {
    const int64_t heads = task_.heads_per_kv;
    for (int64_t head = 0; head < heads; ++head) {
      Maxima()[head] = LargestScore(*MaximumOf(part, query + head), hidden, visible, Scores(head));
    }
    for (int64_t head = 0; head < heads; head += kLanes) {
      const F before = Isa::LoadF(MaximumOf(part, query + head));
      Isa::StoreF(Rescales() + head, Math::Exp(Isa::SubF(before, Isa::LoadF(Maxima() + head))));
    }
    for (int64_t head = 0; head < heads; ++head) {
      *MaximumOf(part, query + head) = Maxima()[head];
      const F now = Isa::SetF(Maxima()[head]);
      float* const sums = WeightsOf(part, query + head);
      F sum = Isa::MulF(Isa::LoadF(sums), Isa::SetF(Rescales()[head]));
      float* const scores = Scores(head);
      for (int64_t t = 0; t < visible; t += kLanes) {
        const F weight = Math::Exp(Isa::SubF(Isa::LoadF(scores + t), now));
        Isa::StoreF(scores + t, weight);
        sum = Isa::AddF(sum, weight);
      }
      Isa::StoreF(sums, sum);
    }
  }

  // Of a head's scores and `before`. Those of tokens that are not seen become minus infinity.
  float LargestScore(float before, int64_t hidden, int64_t visible, float* scores) const {
    for (int64_t t = 0; t < hidden; ++t) scores[t] = kMinusInfinity;
    for (int64_t t = visible; t < layout_.tokens; ++t) scores[t] = kMinusInfinity;
    F largest = Isa::SetF(before);
    for (int64_t t = 0; t < visible; t += kLanes) {
      largest = Isa::MaxF(largest, Isa::LoadF(scores + t));
    }
    return Isa::LargestF(largest);
  }

  // sums = sums * rescale, then + weight * value token by token, for `vectors` vectors of a head.
  template <int heads, int vectors, class Block>
  void AddValues(Block block, int64_t query, int64_t head, int64_t hidden, int64_t visible,
                 int64_t d, float* part) {
    float* out = SumOf(part, query + head) + d;
    const float* weights = Scores(head);
    const int64_t dims = layout_.dims, tokens = layout_.tokens;
    const std::byte* const next = ask_.values + ask_.vector_bytes * (d / kLanes);
    const int64_t value_bytes = ask_.value_bytes;
    const int64_t asked = head == 0 ? ask_.vector_bytes * vectors : 0;
    F sums[heads][vectors];
    Unroll<heads * vectors>([&](auto i) RENGA_INLINE_LAMBDA {
      constexpr int h = i / vectors, v = i % vectors;
      const F rescale = Isa::SetF(Rescales()[head + h]);
      sums[h][v] = Isa::MulF(Isa::LoadF(out + h * dims + v * kLanes), rescale);
    });
    for (int64_t t = hidden; t < visible; ++t) {
      Prefetch(next + t * value_bytes, asked);
      F value[vectors];
      Unroll<vectors>([&](auto v)
                          RENGA_INLINE_LAMBDA { value[v] = block.Value(t, d + v * kLanes); });
      Unroll<heads>([&](auto h) RENGA_INLINE_LAMBDA {
        const F weight = Isa::SetF(weights[h * tokens + t]);
        Unroll<vectors>([&](auto v) RENGA_INLINE_LAMBDA {
          sums[h][v] = Isa::MulAddF(weight, value[v], sums[h][v]);
        });
      });
    }
    Unroll<heads * vectors>([&](auto i) RENGA_INLINE_LAMBDA {
      constexpr int h = i / vectors, v = i % vectors;
      Isa::StoreF(out + h * dims + v * kLanes, sums[h][v]);
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
  // As in Ask: a division for every block would be felt.
  const int64_t key_bytes_;
  const int64_t value_bytes_;
  const int64_t vector_bytes_;
  const bool as_they_lie_;  // no cell is converted twice, so none is kept converted
  Ask ask_;
};

}  // namespace renga::kernels::cpu

#endif  // RENGA_WORKER_KERNELS_CPU_ATTENTION_KERNEL_H_

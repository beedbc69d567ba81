// Attention over the paged cache with an online softmax.
//
// One call computes a few rows of one sequence for the query heads that share a KV head, so that
// each key and value is read and converted once for all of them. For one row and head the order is
// fixed by absolute positions: cache blocks in order; within a block the scores of all visible
// tokens, one maximum, one rescaling of what came before, then the values token by token. Neither
// the number of rows at once nor the split of a prompt into chunks can change a bit.
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
    const Layout layout(task);
    return layout.floats * static_cast<int64_t>(sizeof(float));
  }

  static void Run(const AttentionTask& task, int64_t kv_head, int64_t begin, int64_t n,
                  std::byte* scratch) {
    AttentionKernel(task, kv_head, begin, n, reinterpret_cast<float*>(scratch)).Compute();
  }

 private:
  using F = typename Isa::F;
  using Math = VectorMath<Isa>;
  static constexpr int64_t kLanes = Isa::kLanes;
  static constexpr float kMinusInfinity = -__builtin_inff();

  static constexpr int64_t RoundUp(int64_t n) { return (n + kLanes - 1) / kLanes * kLanes; }

  // Where things are in the working memory, in floats. Heads and blocks are padded to whole
  // vectors; a "query" is a row and head.
  struct Layout {
    explicit Layout(const AttentionTask& task)
        : dims(RoundUp(task.head_dim)), tokens(RoundUp(task.block_tokens)) {
      const int64_t most = kAttentionRows * task.heads_per_kv;
      queries = 0;
      sums = queries + most * dims;
      weights = sums + most * dims;
      maxima = weights + most * kLanes;
      keys = maxima + RoundUp(most);
      values = keys + tokens * dims;
      scores = values + tokens * dims;
      floats = scores + 2 * tokens;
    }
    int64_t dims;     // of a padded head
    int64_t tokens;   // of a padded block
    int64_t queries;  // [query][dims], scaled
    int64_t sums;     // [query][dims]: sum of weight * value so far
    int64_t weights;  // [query][kLanes]: sum of weights so far, by token mod kLanes
    int64_t maxima;   // [query]: largest score so far
    int64_t keys;     // [token][dims] of one block
    int64_t values;   // [token][dims]
    int64_t scores;   // [2][tokens]
    int64_t floats;
  };

  AttentionKernel(const AttentionTask& task, int64_t kv_head, int64_t begin, int64_t n,
                  float* memory)
      : task_(task), kv_head_(kv_head), begin_(begin), n_(n), layout_(task), memory_(memory) {}

  void Compute() {
    LoadQueries();
    const int64_t last = task_.first_position + begin_ + n_ - 1;
    for (int64_t block = 0; block <= last / task_.block_tokens; ++block) {
      const int64_t first = block * task_.block_tokens;
      LoadBlock(task_.blocks[block], Visible(first, last));
      for (int64_t row = 0; row < n_; ++row) {
        const int64_t visible = Visible(first, task_.first_position + begin_ + row);
        if (visible <= 0) continue;
        int64_t query = row * task_.heads_per_kv;
        const int64_t end = query + task_.heads_per_kv;
        for (; query + 2 <= end; query += 2) Attend<2>(query, visible);
        if (query < end) Attend<1>(query, visible);
      }
    }
    StoreOutputs();
  }

  // Tokens of the block starting at position `first` that a row at `position` sees.
  int64_t Visible(int64_t first, int64_t position) const {
    const int64_t visible = position - first + 1;
    return visible < task_.block_tokens ? visible : task_.block_tokens;
  }

  void LoadQueries() {
    const F scale = Isa::SetF(task_.scale);
    for (int64_t query = 0; query < n_ * task_.heads_per_kv; ++query) {
      const float* in = task_.queries + (begin_ + query / task_.heads_per_kv) * task_.query_stride +
                        HeadOf(query) * task_.head_dim;
      float* out = memory_ + layout_.queries + query * layout_.dims;
      float* sums = memory_ + layout_.sums + query * layout_.dims;
      for (int64_t d = 0; d < layout_.dims; d += kLanes) {
        Isa::StoreF(out + d, Isa::MulF(LoadHead(in, d), scale));
        Isa::StoreF(sums + d, Isa::ZeroF());
      }
      Isa::StoreF(memory_ + layout_.weights + query * kLanes, Isa::ZeroF());
      memory_[layout_.maxima + query] = kMinusInfinity;
    }
  }

  int64_t HeadOf(int64_t query) const {
    return kv_head_ * task_.heads_per_kv + query % task_.heads_per_kv;
  }

  // kLanes numbers of a head from `d` on, zeros beyond its end.
  F LoadHead(const float* head, int64_t d) const {
    if (d + kLanes <= task_.head_dim) return Isa::LoadF(head + d);
    return Math::LoadFirst(head + d, task_.head_dim - d);
  }

  // The block's first `tokens` keys and values as floats.
  void LoadBlock(int64_t block, int64_t tokens) {
    const int64_t first = (block * task_.kv_heads + kv_head_) * task_.block_tokens * task_.head_dim;
    LoadTokens(task_.keys, first, tokens, memory_ + layout_.keys);
    LoadTokens(task_.values, first, tokens, memory_ + layout_.values);
  }

  void LoadTokens(const std::byte* cache, int64_t first, int64_t tokens, float* out) const {
    for (int64_t t = 0; t < tokens; ++t, first += task_.head_dim, out += layout_.dims) {
      if (task_.half) {
        LoadHalves(cache + 2 * first, out);
      } else {
        const float* head = reinterpret_cast<const float*>(cache) + first;
        for (int64_t d = 0; d < layout_.dims; d += kLanes) Isa::StoreF(out + d, LoadHead(head, d));
      }
    }
  }

  void LoadHalves(const std::byte* head, float* out) const {
    int64_t d = 0;
    for (; d + kLanes <= task_.head_dim; d += kLanes) {
      Isa::StoreF(out + d, Isa::LoadHalf(head + 2 * d));
    }
    if (d == layout_.dims) return;
    std::byte last[2 * kLanes] = {};
    for (int64_t i = 0; i < 2 * (task_.head_dim - d); ++i) last[i] = head[2 * d + i];
    Isa::StoreF(out + d, Isa::LoadHalf(last));
  }

  // Takes `visible` tokens of the loaded block into the sums of `heads` queries of a row.
  template <int heads>
  void Attend(int64_t query, int64_t visible) {
    Score<heads>(query, visible);
    F rescale[heads];
    for (int h = 0; h < heads; ++h) rescale[h] = Weigh(query + h, visible, Scores(h));
    int64_t d = 0;
    for (; d + 4 * kLanes <= layout_.dims; d += 4 * kLanes) {
      AddValues<heads, 4>(query, visible, d, rescale);
    }
    for (; d < layout_.dims; d += kLanes) AddValues<heads, 1>(query, visible, d, rescale);
  }

  float* Scores(int h) { return memory_ + layout_.scores + h * layout_.tokens; }

  // scores[h][t] = query h * key t: per lane over the head in order, then one sum of the lanes.
  template <int heads>
  void Score(int64_t query, int64_t visible) {
    int64_t t = 0;
    for (; t + 4 <= visible; t += 4) ScoreTile<heads, 4>(query, t);
    for (; t < visible; ++t) ScoreTile<heads, 1>(query, t);
  }

  template <int heads, int tokens>
  void ScoreTile(int64_t query, int64_t t) {
    const float* queries = memory_ + layout_.queries + query * layout_.dims;
    const float* keys = memory_ + layout_.keys + t * layout_.dims;
    F dots[heads][tokens];
    Unroll<heads * tokens>(
        [&](auto i) RENGA_INLINE_LAMBDA { dots[i / tokens][i % tokens] = Isa::ZeroF(); });
    for (int64_t d = 0; d < layout_.dims; d += kLanes) {
      F key[tokens];
      Unroll<tokens>([&](auto k)
                         RENGA_INLINE_LAMBDA { key[k] = Isa::LoadF(keys + k * layout_.dims + d); });
      Unroll<heads>([&](auto h) RENGA_INLINE_LAMBDA {
        const F q = Isa::LoadF(queries + h * layout_.dims + d);
        Unroll<tokens>(
            [&](auto k) RENGA_INLINE_LAMBDA { dots[h][k] = Isa::MulAddF(q, key[k], dots[h][k]); });
      });
    }
    Unroll<heads * tokens>([&](auto i) RENGA_INLINE_LAMBDA {
      Scores(i / tokens)[t + i % tokens] = Isa::SumF(dots[i / tokens][i % tokens]);
    });
  }

  // Turns a query's scores into weights relative to the largest score so far, adds them up, and
  // returns what earlier sums must be multiplied by.
  F Weigh(int64_t query, int64_t visible, float* scores) {
    for (int64_t t = visible; t < layout_.tokens; ++t) scores[t] = kMinusInfinity;
    float& maximum = memory_[layout_.maxima + query];
    F largest = Isa::SetF(maximum);
    const F before = largest;
    for (int64_t t = 0; t < visible; t += kLanes) {
      largest = Isa::MaxF(largest, Isa::LoadF(scores + t));
    }
    maximum = Isa::LargestF(largest);
    const F now = Isa::SetF(maximum);
    const F rescale = Math::Exp(Isa::SubF(before, now));
    float* weights = memory_ + layout_.weights + query * kLanes;
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
  void AddValues(int64_t query, int64_t visible, int64_t d, const F* rescale) {
    float* out = memory_ + layout_.sums + query * layout_.dims + d;
    F sums[heads][vectors];
    Unroll<heads * vectors>([&](auto i) RENGA_INLINE_LAMBDA {
      constexpr int h = i / vectors, v = i % vectors;
      sums[h][v] = Isa::MulF(Isa::LoadF(out + h * layout_.dims + v * kLanes), rescale[h]);
    });
    const float* values = memory_ + layout_.values + d;
    for (int64_t t = 0; t < visible; ++t, values += layout_.dims) {
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

  void StoreOutputs() {
    for (int64_t query = 0; query < n_ * task_.heads_per_kv; ++query) {
      float* out = task_.out + (begin_ + query / task_.heads_per_kv) * task_.out_stride +
                   HeadOf(query) * task_.head_dim;
      const float* sums = memory_ + layout_.sums + query * layout_.dims;
      const float total = Isa::SumF(Isa::LoadF(memory_ + layout_.weights + query * kLanes));
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
  const int64_t kv_head_;
  const int64_t begin_;
  const int64_t n_;
  const Layout layout_;
  float* const memory_;
};

}  // namespace renga::kernels::cpu

#endif  // RENGA_WORKER_KERNELS_CPU_ATTENTION_KERNEL_H_

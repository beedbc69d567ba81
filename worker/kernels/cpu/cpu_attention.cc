#include "worker/kernels/cpu/cpu_attention.h"

#include <algorithm>
#include <atomic>
#include <cstring>

#include "base/data_type.h"
#include "base/status_macros.h"
#include "worker/kernels/op_checks.h"

namespace renga::kernels::cpu {
namespace {

// Jobs for each thread that are shared out evenly enough.
constexpr int64_t kJobsPerThread = 4;
// Bytes that the parts of a call may take: of what model::ScratchParts calls fixed.
constexpr int64_t kMostPartBytes = int64_t{2} << 20;

static_assert(kAttentionScaled == base::kKvScaleElements);

KvCells CellsOf(base::DataType type) {
  if (type == base::DataType::kQ8_0) return KvCells::kCodes;
  return type == base::DataType::kF16 ? KvCells::kHalves : KvCells::kFloats;
}

AttentionTask TaskOfSlot(const AttentionArgs& args, const SequenceSlot& slot) {
  const KvCacheView& cache = args.cache;
  AttentionTask task;
  task.queries = args.queries.data + slot.first_row * args.queries.stride;
  task.query_stride = args.queries.stride;
  task.out = args.out.data + slot.first_row * args.out.stride;
  task.out_stride = args.out.stride;
  task.rows = slot.row_count;
  task.first_position = slot.first_position;
  task.keys = cache.keys;
  task.values = cache.values;
  task.cells = CellsOf(cache.type);
  task.head_bytes = KvLayout(cache).head_bytes();
  task.blocks = slot.blocks.data();
  task.block_tokens = cache.block_tokens;
  task.kv_heads = cache.n_kv_heads;
  task.heads_per_kv = args.n_heads / cache.n_kv_heads;
  task.head_dim = cache.head_dim;
  task.scale = args.scale;
  task.window = args.window;
  return task;
}

}  // namespace

// One KV head of one token. In a cache of halves the kernels round; else this is too rare or too
// simple for them.
void CpuAttention::StoreKvHead(const KvLayout& layout, const float* key, const float* value,
                               int64_t token, std::byte* keys, std::byte* values) {
  if (layout.type != base::DataType::kF16) {
    kernels::StoreKvHead(layout, key, value, token, keys, values);
    return;
  }
  kernels_.to_half(value, layout.head_dim, values + 2 * token * layout.head_dim);
  key_halves_.resize(static_cast<size_t>(2 * layout.head_dim));
  kernels_.to_half(key, layout.head_dim, key_halves_.data());
  for (int64_t d = 0; d < layout.head_dim; ++d) {
    std::memcpy(keys + 2 * (d * layout.tokens + token), key_halves_.data() + 2 * d, 2);
  }
}

absl::Status CpuAttention::StoreKv(ConstRowsView keys, ConstRowsView values,
                                   const KvCacheView& cache, std::span<const SequenceSlot> slots) {
  RENGA_RETURN_IF_ERROR(CheckStoreKv(keys, values, cache, slots));
  const KvLayout layout(cache);
  for (const SequenceSlot& slot : slots) {
    for (int64_t i = 0; i < slot.row_count; ++i) {
      const int64_t position = slot.first_position + i;
      const int64_t block = slot.blocks[static_cast<size_t>(position / cache.block_tokens)];
      const float* key = keys.data + (slot.first_row + i) * keys.stride;
      const float* value = values.data + (slot.first_row + i) * values.stride;
      for (int64_t head = 0; head < cache.n_kv_heads; ++head) {
        const int64_t offset = (block * cache.n_kv_heads + head) * layout.head_bytes();
        StoreKvHead(layout, key + head * cache.head_dim, value + head * cache.head_dim,
                    position % cache.block_tokens, cache.keys + offset, cache.values + offset);
      }
    }
  }
  return absl::OkStatus();
}

void CpuAttention::PrepareJobs(const AttentionArgs& args) {
  tasks_.clear();
  jobs_.clear();
  for (const SequenceSlot& slot : args.slots) {
    const AttentionTask task = TaskOfSlot(args, slot);
    const auto index = static_cast<int64_t>(tasks_.size());
    for (int64_t begin = 0; begin < task.rows; begin += kAttentionRows) {
      const int64_t count = std::min(kAttentionRows, task.rows - begin);
      const int64_t last = task.first_position + begin + count - 1;
      for (int64_t head = 0; head < task.kv_heads; ++head) {
        jobs_.push_back({.slot = index,
                         .rows = {.kv_head = head, .begin = begin, .count = count},
                         .spans = last / kAttentionSpan + 1});
      }
    }
    tasks_.push_back(task);
  }
}

// Lists the spans of all jobs; returns the bytes of their parts.
int64_t CpuAttention::PrepareSpans() {
  spans_.clear();
  int64_t bytes = 0;
  for (const Job& job : jobs_) {
    const AttentionTask& task = tasks_[static_cast<size_t>(job.slot)];
    const int64_t each = kernels_.attention_part(task, job.rows.count);
    for (int64_t span = 0; span < job.spans; ++span, bytes += each) {
      spans_.push_back({.job = &job, .span = span, .part_offset = bytes});
    }
  }
  return bytes;
}

// Calls body(i, scratch) for all i in [0, n); each thread has a working memory of its own.
template <class Body>
absl::Status CpuAttention::ForAll(int64_t n, const Body& body) {
  // All tasks of a call have the same shape.
  const int64_t each = (kernels_.attention_scratch(tasks_.front()) + 63) / 64 * 64;
  RENGA_RETURN_IF_ERROR(scratch_.Reserve(each * pool_->thread_count()));
  std::atomic<int64_t> next{0};
  pool_->ParallelFor(pool_->thread_count(), 1, [&](int64_t begin, int64_t end) {
    for (int64_t thread = begin; thread < end; ++thread) {
      std::byte* scratch = scratch_.data() + thread * each;
      for (int64_t i = next.fetch_add(1); i < n; i = next.fetch_add(1)) body(i, scratch);
    }
  });
  return absl::OkStatus();
}

// Job by job.
absl::Status CpuAttention::RunJobs() {
  return ForAll(static_cast<int64_t>(jobs_.size()), [&](int64_t i, std::byte* scratch) {
    const Job& job = jobs_[static_cast<size_t>(i)];
    kernels_.attention(TaskOf(job), job.rows, scratch);
  });
}

// Span by span, as PrepareSpans has listed them; then the parts are joined.
absl::Status CpuAttention::RunSpans(int64_t part_bytes) {
  RENGA_RETURN_IF_ERROR(parts_.Reserve(part_bytes));
  std::byte* const parts = parts_.data();
  RENGA_RETURN_IF_ERROR(
      ForAll(static_cast<int64_t>(spans_.size()), [&](int64_t i, std::byte* scratch) {
        const Span& span = spans_[static_cast<size_t>(i)];
        kernels_.attention_span(TaskOf(*span.job), span.job->rows, span.span, scratch,
                                parts + span.part_offset);
      }));
  for (const Span& span : spans_) {
    if (span.span > 0) continue;
    kernels_.attention_join(TaskOf(*span.job), span.job->rows, span.job->spans, scratch_.data(),
                            parts + span.part_offset);
  }
  return absl::OkStatus();
}

absl::Status CpuAttention::Run(const AttentionArgs& args) {
  RENGA_RETURN_IF_ERROR(CheckAttention(args));
  PrepareJobs(args);
  const auto jobs = static_cast<int64_t>(jobs_.size());
  if (jobs == 0) return absl::OkStatus();
  // Heads and rows are enough to share out, or there is nobody to share with.
  if (pool_->thread_count() == 1 || jobs >= kJobsPerThread * pool_->thread_count()) {
    return RunJobs();
  }
  // Else the context is shared out too, unless that is too much to keep.
  const int64_t part_bytes = PrepareSpans();
  return part_bytes > kMostPartBytes ? RunJobs() : RunSpans(part_bytes);
}

}  // namespace renga::kernels::cpu

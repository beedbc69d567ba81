// Attention of the CPU backend: what goes into a KV cache, and how the queries' work on it is
// shared out between threads. The arithmetic is in attention_kernel.h.
#ifndef RENGA_WORKER_KERNELS_CPU_CPU_ATTENTION_H_
#define RENGA_WORKER_KERNELS_CPU_CPU_ATTENTION_H_

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "absl/status/status.h"
#include "base/thread_pool.h"
#include "worker/kernels/backend.h"
#include "worker/kernels/cpu/kernel_table.h"
#include "worker/kernels/cpu/working_memory.h"
#include "worker/kernels/kv_layout.h"

namespace renga::kernels::cpu {

// Used as its backend is, from one thread at a time.
class CpuAttention {
 public:
  // Both outlive this.
  CpuAttention(const CpuKernels& kernels, base::ThreadPool* pool)
      : kernels_(kernels), pool_(pool) {}

  // Backend::StoreKv and Backend::Attention.
  absl::Status StoreKv(ConstRowsView keys, ConstRowsView values, const KvCacheView& cache,
                       std::span<const SequenceSlot> slots);
  absl::Status Run(const AttentionArgs& args);

 private:
  // Rows of a slot of a call, and how many spans of positions they see.
  struct Job {
    int64_t slot = 0;
    AttentionRows rows;
    int64_t spans = 0;
  };
  // One span of a job, and where in parts_ its sums go.
  struct Span {
    const Job* job = nullptr;
    int64_t span = 0;
    int64_t part_offset = 0;
  };

  void StoreKvHead(const KvLayout& layout, const float* key, const float* value, int64_t token,
                   std::byte* keys, std::byte* values);
  void PrepareJobs(const AttentionArgs& args);
  const AttentionTask& TaskOf(const Job& job) const {
    return tasks_[static_cast<size_t>(job.slot)];
  }
  int64_t PrepareSpans();
  absl::Status RunJobs();
  absl::Status RunSpans(int64_t part_bytes);
  template <class Body>
  absl::Status ForAll(int64_t n, const Body& body);

  const CpuKernels& kernels_;
  base::ThreadPool* const pool_;
  // Of the call under way.
  std::vector<AttentionTask> tasks_;  // one for each slot
  std::vector<Job> jobs_;
  std::vector<Span> spans_;
  WorkingMemory scratch_;
  WorkingMemory parts_;
  std::vector<std::byte> key_halves_;
};

}  // namespace renga::kernels::cpu

#endif  // RENGA_WORKER_KERNELS_CPU_CPU_ATTENTION_H_

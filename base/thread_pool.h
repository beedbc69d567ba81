// Threads for data-parallel loops inside one operation.
//
// A ThreadPool has a fixed number of threads, the caller among them: a pool of 1 starts no thread.
// ParallelFor is called from one thread at a time (the engine's own). Workers spin briefly between
// loops, then sleep, so an idle pool uses no CPU.
#ifndef RENGA_BASE_THREAD_POOL_H_
#define RENGA_BASE_THREAD_POOL_H_

#include <cstdint>
#include <functional>
#include <memory>

namespace renga::base {

// CPUs this process may use: the smaller of its affinity mask and its cgroup's CPU quota (v1 and
// v2, rounded up), at least 1.
int UsableCpuCount();

// Bytes this process may still allocate: the smaller of the system's available memory and what its
// cgroup (v1 and v2) leaves.
int64_t AvailableMemoryBytes();

class ThreadPool {
 public:
  // `threads` >= 1, the calling thread included.
  explicit ThreadPool(int threads);
  ~ThreadPool();
  ThreadPool(const ThreadPool&) = delete;
  ThreadPool& operator=(const ThreadPool&) = delete;

  int thread_count() const;

  // Calls body(begin, end) so that every index of [0, n) is in exactly one call, in pieces of
  // about `grain` indices, and returns when all are done. Which thread runs which piece is not
  // fixed: bodies must write only what belongs to their indices.
  void ParallelFor(int64_t n, int64_t grain, const std::function<void(int64_t, int64_t)>& body);

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace renga::base

#endif  // RENGA_BASE_THREAD_POOL_H_

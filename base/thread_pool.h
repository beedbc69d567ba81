// Threads for data-parallel loops inside one operation.
//
// A ThreadPool has a fixed number of threads, the caller among them: a pool of 1 starts no thread.
// ParallelFor is called from one thread at a time (the engine's own), never from inside a body.
// Threads spin up to 50 us between loops, then sleep, so an idle pool uses no CPU; with more
// threads than usable CPUs they sleep at once.
#ifndef RENGA_BASE_THREAD_POOL_H_
#define RENGA_BASE_THREAD_POOL_H_

#include <cstdint>
#include <functional>
#include <memory>

#include "base/machine_limits.h"  // IWYU pragma: export: UsableCpuCount and the like

namespace renga::base {

class ThreadPool {
 public:
  // `threads` >= 1, the calling thread included; fewer when the system allows no more.
  explicit ThreadPool(int threads);
  ~ThreadPool();
  ThreadPool(const ThreadPool&) = delete;
  ThreadPool& operator=(const ThreadPool&) = delete;

  int thread_count() const;

  // Calls body(begin, end) so that every index of [0, n) is in exactly one call, and returns when
  // all are done. Pieces begin at multiples of `grain` and have at most `most` indices (at least
  // one grain): large ones while much is left, and single grains at the end, so that all threads
  // end together. Which thread runs which piece is not fixed: bodies must write only what belongs
  // to their indices. Where all threads are equally fast, each gets neighbouring pieces, in order.
  void ParallelFor(int64_t n, int64_t grain, int64_t most,
                   const std::function<void(int64_t, int64_t)>& body);
  // All pieces of one grain.
  void ParallelFor(int64_t n, int64_t grain, const std::function<void(int64_t, int64_t)>& body) {
    ParallelFor(n, grain, grain, body);
  }

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace renga::base

#endif  // RENGA_BASE_THREAD_POOL_H_

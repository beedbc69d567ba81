// What the engine's thread has to do, in order.
#ifndef RENGA_WORKER_SERVICE_JOB_QUEUE_H_
#define RENGA_WORKER_SERVICE_JOB_QUEUE_H_

#include <atomic>
#include <chrono>
#include <cstddef>
#include <deque>
#include <functional>

#include "absl/base/thread_annotations.h"
#include "absl/functional/any_invocable.h"
#include "absl/synchronization/mutex.h"

namespace renga::worker {

// Thread-safe; one thread pops. Bounded by its users: frames by their edges' windows, loads by the
// coordinator's calls.
class JobQueue {
 public:
  using Job = absl::AnyInvocable<void()>;

  // How the popping thread looks for work itself; either may be empty.
  struct Looker {
    std::function<void()> look;  // called again and again while there is no job; may push
    std::function<void()> rest;  // before it sleeps: jobs have to come from others now
  };

  // Dropped after Close.
  void Push(Job job);
  // The next job; an empty one after Close. For one thread. Looks for work before it sleeps, for
  // twice as long as it had to wait the last few times where that was some milliseconds: waking a
  // sleeping thread and core takes a good part of a step. Without work it sleeps.
  Job Pop(const Looker& looker);
  // Whether a job waits, or the queue is closed. From any thread.
  bool HasWork() const { return size_.load(std::memory_order_acquire) > 0; }
  // Drops what waits.
  void Close();

 private:
  // Of the popping thread: how long it looks for work.
  std::chrono::steady_clock::duration spin_ = std::chrono::microseconds(50);
  std::atomic<size_t> size_ = 0;  // of jobs_, to look at without the lock; closing counts as a job
  absl::Mutex mutex_;
  std::deque<Job> jobs_ ABSL_GUARDED_BY(mutex_);
  bool closed_ ABSL_GUARDED_BY(mutex_) = false;
};

}  // namespace renga::worker

#endif  // RENGA_WORKER_SERVICE_JOB_QUEUE_H_

// What the engine's thread has to do, in order.
#ifndef RENGA_WORKER_SERVICE_JOB_QUEUE_H_
#define RENGA_WORKER_SERVICE_JOB_QUEUE_H_

#include <atomic>
#include <cstddef>
#include <deque>

#include "absl/base/thread_annotations.h"
#include "absl/functional/any_invocable.h"
#include "absl/synchronization/mutex.h"

namespace renga::worker {

// Thread-safe; one thread pops. Bounded by its users: frames by their edges' windows, loads by the
// coordinator's calls.
class JobQueue {
 public:
  using Job = absl::AnyInvocable<void()>;

  // Dropped after Close.
  void Push(Job job);
  // The next job; an empty one after Close. Looks for work for a few tens of microseconds before
  // it sleeps: in a pipeline the next step is often that near, and waking a thread takes longer.
  Job Pop();
  // Drops what waits.
  void Close();

 private:
  std::atomic<size_t> size_ = 0;  // of jobs_, to look at without the lock; closing counts as a job
  absl::Mutex mutex_;
  std::deque<Job> jobs_ ABSL_GUARDED_BY(mutex_);
  bool closed_ ABSL_GUARDED_BY(mutex_) = false;
};

}  // namespace renga::worker

#endif  // RENGA_WORKER_SERVICE_JOB_QUEUE_H_

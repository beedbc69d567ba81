#include "worker/service/job_queue.h"

#include <algorithm>
#include <utility>

#include "base/yield_core.h"

namespace renga::worker {
namespace {

using Clock = std::chrono::steady_clock;

constexpr Clock::duration kShortestSpin = std::chrono::microseconds(50);
// A core that has gone to sleep costs each step some hundred microseconds. Where steps are further
// apart than this, that no longer counts.
constexpr Clock::duration kLongestWait = std::chrono::milliseconds(25);

}  // namespace

void JobQueue::Push(Job job) {
  absl::MutexLock lock(&mutex_);
  if (closed_) return;
  jobs_.push_back(std::move(job));
  size_.fetch_add(1, std::memory_order_release);
}

JobQueue::Job JobQueue::Pop(const Looker& looker) {
  const Clock::time_point began = Clock::now();
  while (size_.load(std::memory_order_acquire) == 0 && Clock::now() - began < spin_) {
    if (looker.look) looker.look();
    if (!base::YieldCore()) break;
  }
  if (size_.load(std::memory_order_acquire) == 0 && looker.rest) looker.rest();
  absl::MutexLock lock(&mutex_);
  mutex_.Await(absl::Condition(
      +[](JobQueue* queue) ABSL_EXCLUSIVE_LOCKS_REQUIRED(queue->mutex_) {
        return queue->closed_ || !queue->jobs_.empty();
      },
      this));
  // Steps of a running pipeline come at even intervals, but a token may bring several jobs after
  // waits of different lengths: what the longest of the last few took is remembered.
  const Clock::duration waited = Clock::now() - began;
  spin_ = waited > kLongestWait ? kShortestSpin
                                : std::max({2 * waited, spin_ - spin_ / 4, kShortestSpin});
  if (closed_) return nullptr;
  Job job = std::move(jobs_.front());
  jobs_.pop_front();
  size_.fetch_sub(1, std::memory_order_release);
  return job;
}

void JobQueue::Close() {
  std::deque<Job> dropped;  // destroyed without the lock
  absl::MutexLock lock(&mutex_);
  closed_ = true;
  dropped.swap(jobs_);
  size_.store(1, std::memory_order_release);
}

}  // namespace renga::worker

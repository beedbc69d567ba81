#include "worker/service/job_queue.h"

#include <chrono>
#include <thread>
#include <utility>

namespace renga::worker {
namespace {

constexpr std::chrono::microseconds kSpin(50);

}  // namespace

void JobQueue::Push(Job job) {
  absl::MutexLock lock(&mutex_);
  if (closed_) return;
  jobs_.push_back(std::move(job));
  size_.fetch_add(1, std::memory_order_release);
}

JobQueue::Job JobQueue::Pop() {
  if (size_.load(std::memory_order_acquire) == 0) {
    const auto until = std::chrono::steady_clock::now() + kSpin;
    // Yielding lets others of a busy machine run; on an idle core it returns at once.
    while (size_.load(std::memory_order_acquire) == 0 && std::chrono::steady_clock::now() < until) {
      std::this_thread::yield();
    }
  }
  absl::MutexLock lock(&mutex_);
  mutex_.Await(absl::Condition(
      +[](JobQueue* queue) ABSL_EXCLUSIVE_LOCKS_REQUIRED(queue->mutex_) {
        return queue->closed_ || !queue->jobs_.empty();
      },
      this));
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

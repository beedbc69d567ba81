#include "coordinator/serving/inbox.h"

#include <utility>

namespace renga::serving {

bool Inbox::Put(Event&& event) {
  absl::MutexLock lock(&mutex);
  if (stopping) return false;
  events.push_back(std::move(event));
  return true;
}

std::vector<Event> Inbox::Take(absl::Time deadline, bool& stopped) {
  const auto something = [this]() ABSL_SHARED_LOCKS_REQUIRED(mutex) {
    return stopping || !events.empty();
  };
  absl::MutexLock lock(&mutex);
  mutex.AwaitWithDeadline(absl::Condition(&something), deadline);
  stopped = stopping;
  return std::exchange(events, {});
}

void Inbox::Stop() {
  absl::MutexLock lock(&mutex);
  stopping = true;
}

}  // namespace renga::serving

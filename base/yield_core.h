// Waiting awake on a core that others may need.
#ifndef RENGA_BASE_YIELD_CORE_H_
#define RENGA_BASE_YIELD_CORE_H_

#include <chrono>
#include <thread>

namespace renga::base {

// Lets whoever else is ready run on this core. False when somebody did, for longer than a wait is
// worth: the caller then had better sleep. Two threads on one core that wait awake for each other's
// work take turns there for hundreds of milliseconds, beside a core that idles, since Linux leaves
// threads where they ran last; one that wakes up is given an idle core.
inline bool YieldCore() {
  constexpr auto kLong = std::chrono::microseconds(100);
  const auto begin = std::chrono::steady_clock::now();
  std::this_thread::yield();
  return std::chrono::steady_clock::now() - begin < kLong;
}

}  // namespace renga::base

#endif  // RENGA_BASE_YIELD_CORE_H_

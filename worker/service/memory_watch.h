// Notices when other programs, a desktop above all, take up the rest of a card's memory.
#ifndef RENGA_WORKER_SERVICE_MEMORY_WATCH_H_
#define RENGA_WORKER_SERVICE_MEMORY_WATCH_H_

#include <cstdint>
#include <functional>
#include <string>
#include <utility>

#include "absl/status/statusor.h"
#include "absl/time/time.h"

namespace renga::worker {

// What a worker offers of a card was taken when it started (arena_device.h); the rest is for
// others, and for the driver's own needs. Used by one thread.
class MemoryWatch {
 public:
  static constexpr int64_t kShortBytes = int64_t{64} << 20;   // less is trouble,
  static constexpr int64_t kEnoughBytes = int64_t{96} << 20;  // until there is so much again
  static constexpr absl::Duration kInterval = absl::Seconds(2);

  // `free_bytes` asks the card; `tell` is for what is new: a sentence for people.
  MemoryWatch(std::function<absl::StatusOr<int64_t>()> free_bytes,
              std::function<void(const std::string&)> tell)
      : free_bytes_(std::move(free_bytes)), tell_(std::move(tell)) {}

  // What is wrong at `now`, or "". Asks the card again when kInterval has passed since it last did;
  // a card that does not answer is as it was.
  const std::string& Look(absl::Time now);

 private:
  const std::function<absl::StatusOr<int64_t>()> free_bytes_;
  const std::function<void(const std::string&)> tell_;
  absl::Time next_ = absl::InfinitePast();
  std::string trouble_;
};

}  // namespace renga::worker

#endif  // RENGA_WORKER_SERVICE_MEMORY_WATCH_H_

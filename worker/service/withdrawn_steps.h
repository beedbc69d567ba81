// The steps of an epoch that the coordinator no longer waits for.
#ifndef RENGA_WORKER_SERVICE_WITHDRAWN_STEPS_H_
#define RENGA_WORKER_SERVICE_WITHDRAWN_STEPS_H_

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <span>

#include "transport/dialer.h"

namespace renga::worker {

// Any thread adds, any thread asks, nobody waits: the engine's asks between two layers.
class WithdrawnSteps {
 public:
  explicit WithdrawnSteps(uint64_t epoch) : epoch_(epoch) {}
  uint64_t epoch() const { return epoch_; }

  void Add(std::span<const uint64_t> numbers) {
    for (const uint64_t number : numbers) places_[number % kPlaces] = number;
  }
  // `number` begins at 1. False for one whose place a later one has taken: that one was answered
  // long ago.
  bool Contains(uint64_t number) const { return places_[number % kPlaces] == number; }

 private:
  // Steps on their way have numbers that are closer together than this.
  static constexpr size_t kPlaces = 4 * transport::kEdgeWindowFrames;

  const uint64_t epoch_;
  std::array<std::atomic<uint64_t>, kPlaces> places_ = {};
};

}  // namespace renga::worker

#endif  // RENGA_WORKER_SERVICE_WITHDRAWN_STEPS_H_

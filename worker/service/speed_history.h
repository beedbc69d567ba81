// The last few measurements of a device: what of them to go by.
#ifndef RENGA_WORKER_SERVICE_SPEED_HISTORY_H_
#define RENGA_WORKER_SERVICE_SPEED_HISTORY_H_

#include <deque>

#include "worker/service/speed_probe.h"

namespace renga::worker {

// Each figure is the middle one of the last three measurements, and the one that was made when the
// worker started counts twice: so one that met another program, or a rested processor, changes
// nothing, and two that agree do. A figure that was not measured (0) has no say. Not thread-safe.
class SpeedHistory {
 public:
  explicit SpeedHistory(const DeviceSpeed& first);

  void Add(const DeviceSpeed& measured);
  // Formats in the order in which they were first measured.
  const DeviceSpeed& settled() const { return settled_; }
  // Whether the last measurement says something else than settled(), by more than a seventh: then
  // another one should soon say which is right.
  bool InDoubt() const;
  // Whether settled() is from two measurements that were made after the first.
  bool confirmed() const { return added_ >= 2; }

 private:
  std::deque<DeviceSpeed> last_;  // kKept, the newest at the end
  DeviceSpeed settled_;
  int added_ = 0;
};

}  // namespace renga::worker

#endif  // RENGA_WORKER_SERVICE_SPEED_HISTORY_H_

// Measures the device again now and then, while the worker has nothing to do: machines become
// slower when they are warm, on battery or shared, and faster again.
#ifndef RENGA_WORKER_SERVICE_QUIET_PROBE_H_
#define RENGA_WORKER_SERVICE_QUIET_PROBE_H_

#include <atomic>
#include <cstdint>
#include <functional>
#include <thread>

#include "absl/base/thread_annotations.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "worker/service/speed_history.h"
#include "worker/service/speed_probe.h"

namespace renga::worker {

// Thread-safe. Has a thread of its own from construction to Stop.
class QuietProbe {
 public:
  struct Options {
    // Time since some start, never backwards.
    std::function<absl::Duration()> clock;
    // Changes with everything that the worker is asked to do. From any thread.
    std::function<uint64_t()> orders;
    // Measures, on the probe's thread. Asks `give_way` often, which is true from when the worker is
    // asked to do something, or the probe is to stop; kCancelled then.
    std::function<absl::StatusOr<DeviceSpeed>(const GiveWay& give_way)> measure;
    DeviceSpeed first;  // as measured when the probe is made

    // How old a measurement gets, and how long the worker must have been idle before the next. One
    // that says something else than those before is repeated after `doubt`.
    absl::Duration good_for = absl::Minutes(30);
    absl::Duration idle_after = absl::Seconds(20);
    absl::Duration doubt = absl::Minutes(2);
    absl::Duration tick = absl::Seconds(1);
  };
  explicit QuietProbe(Options options);
  ~QuietProbe() { Stop(); }
  QuietProbe(const QuietProbe&) = delete;
  QuietProbe& operator=(const QuietProbe&) = delete;

  struct Report {
    DeviceSpeed speed;
    absl::Duration age;      // of the last measurement
    bool confirmed = false;  // SpeedHistory::confirmed
  };
  Report Read() const;

  // What runs is to give way, and nothing is begun. Does not wait.
  void Cancel();
  // Cancels, and waits for the thread: for a measurement that waits for the engine's thread, until
  // ShardHost::Stop.
  void Stop();

 private:
  void Run();
  // Waits a tick; false when the probe ends.
  bool Wait();
  void Measure();

  const Options options_;
  std::atomic<bool> stopping_ = false;  // set with mutex_, so that it wakes the thread
  // The thread's own.
  uint64_t orders_ = 0;
  absl::Duration busy_at_;
  absl::Duration due_at_;

  mutable absl::Mutex mutex_;
  SpeedHistory history_ ABSL_GUARDED_BY(mutex_);
  absl::Duration measured_at_ ABSL_GUARDED_BY(mutex_);
  std::thread thread_;  // last: it uses the rest
};

}  // namespace renga::worker

#endif  // RENGA_WORKER_SERVICE_QUIET_PROBE_H_

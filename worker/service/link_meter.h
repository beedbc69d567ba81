// Measures this worker's link to another one when the coordinator asks for it.
#ifndef RENGA_WORKER_SERVICE_LINK_METER_H_
#define RENGA_WORKER_SERVICE_LINK_METER_H_

#include <atomic>
#include <functional>
#include <memory>
#include <thread>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "proto/worker.pb.h"
#include "transport/dialer.h"

namespace renga::worker {

// Thread-safe. One measurement at a time, on a thread of its own; transport/link_probe.h bounds
// how long and how large.
class LinkMeter {
 public:
  using Done = std::function<void(absl::StatusOr<proto::MeasureLinkReply>)>;

  // `dialer` outlives the meter.
  explicit LinkMeter(transport::Dialer* dialer) : dialer_(dialer) {}
  ~LinkMeter() { Stop(); }
  LinkMeter(const LinkMeter&) = delete;
  LinkMeter& operator=(const LinkMeter&) = delete;

  // `done` runs once: at once with kInvalidArgument for a request out of bounds,
  // kResourceExhausted while another measurement runs or kCancelled after Stop; otherwise on the
  // meter's thread with the reply or what went wrong. It must not block.
  void Measure(const proto::MeasureLinkRequest& request, Done done);
  // Cancels what runs and waits for it.
  void Stop();

 private:
  void Run(const proto::MeasureLinkRequest& request, const Done& done);

  transport::Dialer* const dialer_;
  absl::Mutex mutex_;
  bool stopped_ ABSL_GUARDED_BY(mutex_) = false;
  bool running_ ABSL_GUARDED_BY(mutex_) = false;
  std::atomic<bool> cancelled_ = false;
  std::thread thread_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace renga::worker

#endif  // RENGA_WORKER_SERVICE_LINK_METER_H_

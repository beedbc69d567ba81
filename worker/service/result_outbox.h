// Results on their way to the coordinator: head blocks' answers and failures of steps.
#ifndef RENGA_WORKER_SERVICE_RESULT_OUTBOX_H_
#define RENGA_WORKER_SERVICE_RESULT_OUTBOX_H_

#include <cstddef>
#include <cstdint>
#include <deque>
#include <memory>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/synchronization/mutex.h"
#include "proto/step.pb.h"
#include "transport/local_worker.h"

namespace renga::worker {

// Thread-safe. The coordinator opens one stream per epoch. Results that are ready before it is
// open wait, since the first step can overtake the call on its way here;
// and those that are ready after its end wait for another one.
class ResultOutbox {
 public:
  static constexpr size_t kMaxWaiting = 256;

  // A new epoch: what waits is dropped, the stream of the old one ends with kAborted.
  void Begin(uint64_t epoch);
  // Results of another epoch than the present one are dropped.
  void Push(proto::StepResult result);
  // Gives `stream` everything of `epoch` from now on; an earlier stream of the same epoch ends.
  // Ends the stream with kAborted or kFailedPrecondition when it is not the present epoch.
  void Attach(uint64_t epoch, std::shared_ptr<transport::ResultSink> stream);
  // Ends the stream with `status`; the present epoch is over.
  void Close(const absl::Status& status);

 private:
  absl::Mutex mutex_;
  uint64_t epoch_ ABSL_GUARDED_BY(mutex_) = 0;
  std::shared_ptr<transport::ResultSink> stream_ ABSL_GUARDED_BY(mutex_);
  std::deque<proto::StepResult> waiting_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace renga::worker

#endif  // RENGA_WORKER_SERVICE_RESULT_OUTBOX_H_

// A worker in the coordinator's own process: steps and results are handed over as they are.
//
// Everything else goes through gRPC's in-process channel, as to any other worker.
#ifndef RENGA_TRANSPORT_LOCAL_WORKER_H_
#define RENGA_TRANSPORT_LOCAL_WORKER_H_

#include <cstdint>
#include <functional>
#include <memory>
#include <span>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/synchronization/mutex.h"
#include "proto/step.pb.h"

namespace renga::transport {

// Where a worker writes the results of an epoch: a connection, or the coordinator itself.
// Thread-safe.
class ResultSink {
 public:
  virtual ~ResultSink() = default;
  // Never blocks. False when there has been an end, of either side's: then `result` is as it was.
  virtual bool Write(proto::StepResult&& result) = 0;
  // No more come, and why. Only the first end counts.
  virtual void End(const absl::Status& status) = 0;
};

// Thread-safe. Shared by the worker and whoever dials it: one may outlive the other.
class LocalWorker {
 public:
  struct Functions {
    // As connections for steps and for results. Neither blocks, and results are written on another
    // thread than run_frame's.
    std::function<void(proto::StepFrame)> run_frame;
    std::function<void(uint64_t epoch, std::shared_ptr<ResultSink>)> attach_results;
    // As a proto::StepWithdrawal. Does not block.
    std::function<void(uint64_t epoch, std::span<const uint64_t> numbers)> withdraw_steps;
  };
  explicit LocalWorker(Functions functions);

  // kUnavailable once the worker has closed.
  absl::Status RunFrame(proto::StepFrame frame);
  // Ends the sink with kUnavailable once the worker has closed.
  void AttachResults(uint64_t epoch, std::shared_ptr<ResultSink> sink);
  // Does nothing once the worker has closed.
  void WithdrawSteps(uint64_t epoch, std::span<const uint64_t> numbers);
  // By the worker, before it goes: its functions are not called again.
  void Close();

 private:
  // Each also while its function runs. Two, because attaching may call the coordinator back, which
  // may be sending a frame at that time.
  absl::Mutex frames_mutex_;
  absl::Mutex results_mutex_;
  decltype(Functions::run_frame) run_frame_ ABSL_GUARDED_BY(frames_mutex_);
  decltype(Functions::withdraw_steps) withdraw_steps_ ABSL_GUARDED_BY(frames_mutex_);
  decltype(Functions::attach_results) attach_results_ ABSL_GUARDED_BY(results_mutex_);
};

}  // namespace renga::transport

#endif  // RENGA_TRANSPORT_LOCAL_WORKER_H_

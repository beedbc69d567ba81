// The receiving end of an edge: frames in, credits out.
#ifndef RENGA_WORKER_SERVICE_STEPS_STREAM_H_
#define RENGA_WORKER_SERVICE_STEPS_STREAM_H_

#include <grpcpp/support/server_callback.h>

#include <cstdint>
#include <memory>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/synchronization/mutex.h"
#include "proto/step.pb.h"
#include "worker/service/shard_host.h"

namespace renga::worker {

// Thread-safe. gRPC and the frames that are being computed own it together: it lives until the
// call is over and the last frame is done.
class StepsStream : public grpc::ServerBidiReactor<proto::StepFrame, proto::StepCredit>,
                    public std::enable_shared_from_this<StepsStream> {
 public:
  // `host` outlives the stream.
  static std::shared_ptr<StepsStream> Create(ShardHost* host);

  // Starts reading; `window` 0: nothing may be sent before GrantWindow.
  void Start(uint32_t window);
  // The first credits; later calls do nothing.
  void GrantWindow(uint32_t window);
  void End(const absl::Status& status);

  void OnReadDone(bool ok) override;
  void OnWriteDone(bool ok) override;
  void OnCancel() override;
  void OnDone() override;

 private:
  explicit StepsStream(ShardHost* host) : host_(host) {}
  void FrameDone();
  void WriteCredits() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void EndLocked(const absl::Status& status) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  ShardHost* const host_;
  proto::StepFrame frame_;  // gRPC's between StartRead and OnReadDone

  absl::Mutex mutex_;
  proto::StepCredit credit_ ABSL_GUARDED_BY(mutex_);  // gRPC's while writing_
  bool writing_ ABSL_GUARDED_BY(mutex_) = false;
  bool ended_ ABSL_GUARDED_BY(mutex_) = false;
  uint32_t window_ ABSL_GUARDED_BY(mutex_) = 0;       // as granted; 0: not yet
  uint32_t outstanding_ ABSL_GUARDED_BY(mutex_) = 0;  // frames here that are not done
  uint32_t to_grant_ ABSL_GUARDED_BY(mutex_) = 0;
  std::shared_ptr<StepsStream> self_;
};

}  // namespace renga::worker

#endif  // RENGA_WORKER_SERVICE_STEPS_STREAM_H_

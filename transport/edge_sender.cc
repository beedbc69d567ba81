#include "transport/edge_sender.h"

#include <grpcpp/channel.h>
#include <grpcpp/client_context.h>
#include <grpcpp/support/client_callback.h>

#include <algorithm>
#include <cstdint>
#include <deque>
#include <utility>

#include "absl/base/thread_annotations.h"
#include "absl/strings/str_cat.h"
#include "absl/synchronization/mutex.h"
#include "absl/synchronization/notification.h"
#include "proto/worker.grpc.pb.h"
#include "transport/grpc_status.h"

namespace renga::transport {
namespace {

// A receiver that grants more than this is confused; the number only keeps the sum in range.
constexpr int64_t kMaxCredits = 1 << 20;

}  // namespace

// Every write is started outside the lock, by the thread that set writing_; the hold keeps gRPC
// from ending the call in between.
class EdgeSender::Reactor : public grpc::ClientBidiReactor<proto::StepFrame, proto::StepCredit> {
 public:
  Reactor(std::shared_ptr<grpc::Channel> channel,
          std::function<void(const absl::Status&)> on_broken)
      : stub_(proto::Worker::NewStub(std::move(channel))), on_broken_(std::move(on_broken)) {
    stub_->async()->Steps(&context_, this);
    AddHold();
    StartRead(&credit_);
    StartCall();
  }

  ~Reactor() override {
    {
      absl::MutexLock lock(&mutex_);
      closing_ = true;
    }
    context_.TryCancel();
    done_.WaitForNotification();
  }

  absl::Status Send(proto::StepFrame frame) {
    const proto::StepFrame* next = nullptr;
    {
      absl::MutexLock lock(&mutex_);
      if (!broken_.ok()) return broken_;
      if (queue_.size() >= kMaxQueuedFrames) {
        return absl::ResourceExhaustedError(
            absl::StrCat("more than ", kMaxQueuedFrames, " steps wait for one worker"));
      }
      queue_.push_back(std::move(frame));
      next = TakeNext();
    }
    if (next != nullptr) StartWrite(next);
    return absl::OkStatus();
  }

  void OnReadDone(bool ok) override {
    const proto::StepFrame* next = nullptr;
    bool release = false;
    {
      absl::MutexLock lock(&mutex_);
      if (ok) {
        credits_ = std::min(credits_ + credit_.frames(), kMaxCredits);
        next = TakeNext();
      } else {
        // OnDone brings the reason; until then senders learn this much.
        if (broken_.ok()) broken_ = absl::UnavailableError("the connection to the worker broke");
        release = !writing_;
      }
    }
    if (ok) StartRead(&credit_);
    if (next != nullptr) StartWrite(next);
    if (release) RemoveHold();
  }

  void OnWriteDone(bool ok) override {
    const proto::StepFrame* next = nullptr;
    bool release = false;
    {
      absl::MutexLock lock(&mutex_);
      writing_ = false;
      queue_.pop_front();
      release = !broken_.ok();
      // After a failed write the read fails too, and tells the rest.
      if (ok && !release) next = TakeNext();
    }
    if (next != nullptr) StartWrite(next);
    if (release) RemoveHold();
  }

  void OnDone(const grpc::Status& status) override {
    absl::Status reason = FromGrpcStatus(status, "the stream of steps");
    if (reason.ok()) reason = absl::UnavailableError("the worker ended the stream of steps");
    bool tell = false;
    {
      absl::MutexLock lock(&mutex_);
      broken_ = reason;
      tell = !closing_;
    }
    if (tell && on_broken_) on_broken_(reason);
    done_.Notify();
  }

 private:
  // The frame to write now, if there is one, room for it, and nothing being written.
  const proto::StepFrame* TakeNext() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    if (writing_ || credits_ == 0 || queue_.empty() || !broken_.ok()) return nullptr;
    --credits_;
    writing_ = true;
    return &queue_.front();
  }

  const std::unique_ptr<proto::Worker::Stub> stub_;
  const std::function<void(const absl::Status&)> on_broken_;
  grpc::ClientContext context_;
  proto::StepCredit credit_;  // gRPC's between StartRead and OnReadDone
  absl::Notification done_;

  absl::Mutex mutex_;
  // A deque: the frame being written stays in place while others join the end.
  std::deque<proto::StepFrame> queue_ ABSL_GUARDED_BY(mutex_);
  bool writing_ ABSL_GUARDED_BY(mutex_) = false;
  bool closing_ ABSL_GUARDED_BY(mutex_) = false;
  int64_t credits_ ABSL_GUARDED_BY(mutex_) = 0;
  absl::Status broken_ ABSL_GUARDED_BY(mutex_);
};

EdgeSender::EdgeSender(std::shared_ptr<grpc::Channel> channel,
                       std::function<void(const absl::Status&)> on_broken)
    : reactor_(std::make_unique<Reactor>(std::move(channel), std::move(on_broken))) {}

EdgeSender::~EdgeSender() = default;

absl::Status EdgeSender::Send(proto::StepFrame frame) { return reactor_->Send(std::move(frame)); }

}  // namespace renga::transport

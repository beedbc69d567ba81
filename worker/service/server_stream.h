// The sending end of a server-streaming call: messages wait in a queue until the one before is
// written.
#ifndef RENGA_WORKER_SERVICE_SERVER_STREAM_H_
#define RENGA_WORKER_SERVICE_SERVER_STREAM_H_

#include <grpcpp/support/server_callback.h>

#include <cstddef>
#include <deque>
#include <functional>
#include <memory>
#include <optional>
#include <utility>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/synchronization/mutex.h"
#include "transport/grpc_status.h"

namespace renga::worker {

// Thread-safe. gRPC and whoever writes own it together: it lives until the call is over and the
// last writer has let go, and writing to a call that is over does nothing.
template <typename Message>
class ServerStream : public grpc::ServerWriteReactor<Message> {
 public:
  // A reader that lets more than this wait has stopped reading.
  static constexpr size_t kMaxQueued = 1024;

  static std::shared_ptr<ServerStream> Create() {
    std::shared_ptr<ServerStream> stream(new ServerStream);
    stream->self_ = stream;
    return stream;
  }

  void Write(Message message) {
    absl::MutexLock lock(&mutex_);
    if (end_.has_value()) return;
    if (queue_.size() >= kMaxQueued) {
      EndLocked(absl::ResourceExhaustedError("the caller does not read its stream"));
      return;
    }
    queue_.push_back(std::move(message));
    if (queue_.size() == 1) this->StartWrite(&queue_.front());
  }

  // Ends the call once everything is written. Only the first end counts.
  void End(const absl::Status& status) {
    absl::MutexLock lock(&mutex_);
    EndLocked(status);
  }

  // Runs when the caller goes away, at once if it is gone already; must not block.
  void SetOnCancel(std::function<void()> on_cancel) {
    {
      absl::MutexLock lock(&mutex_);
      if (!cancelled_) {
        on_cancel_ = std::move(on_cancel);
        return;
      }
    }
    on_cancel();
  }

  // gRPC's reactions.
  void OnWriteDone(bool ok) override {
    absl::MutexLock lock(&mutex_);
    queue_.pop_front();
    if (!ok) {
      queue_.clear();
      if (!end_.has_value()) end_ = absl::CancelledError("the caller is gone");
      FinishLocked();
    } else if (!queue_.empty()) {
      this->StartWrite(&queue_.front());
    } else if (end_.has_value()) {
      FinishLocked();
    }
  }
  void OnCancel() override {
    std::function<void()> on_cancel;
    {
      absl::MutexLock lock(&mutex_);
      cancelled_ = true;
      on_cancel.swap(on_cancel_);
      EndLocked(absl::CancelledError("the caller is gone"));
    }
    if (on_cancel) on_cancel();
  }
  void OnDone() override {
    {
      absl::MutexLock lock(&mutex_);
      on_cancel_ = nullptr;
    }
    // Perhaps the last reference: nothing may touch the object after this.
    std::shared_ptr<ServerStream> self = std::move(self_);
  }

 private:
  ServerStream() = default;

  void EndLocked(const absl::Status& status) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    if (end_.has_value()) return;
    end_ = status;
    if (queue_.empty()) FinishLocked();
  }
  void FinishLocked() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    if (finished_) return;
    finished_ = true;
    this->Finish(transport::ToGrpcStatus(*end_));
  }

  absl::Mutex mutex_;
  // A deque: the message being written stays in place while others join the end.
  std::deque<Message> queue_ ABSL_GUARDED_BY(mutex_);
  std::optional<absl::Status> end_ ABSL_GUARDED_BY(mutex_);
  bool finished_ ABSL_GUARDED_BY(mutex_) = false;
  bool cancelled_ ABSL_GUARDED_BY(mutex_) = false;
  std::function<void()> on_cancel_ ABSL_GUARDED_BY(mutex_);
  std::shared_ptr<ServerStream> self_;
};

}  // namespace renga::worker

#endif  // RENGA_WORKER_SERVICE_SERVER_STREAM_H_

#include "coordinator/cluster/shard_load.h"

#include <grpcpp/channel.h>
#include <grpcpp/client_context.h>
#include <grpcpp/support/client_callback.h>

#include <algorithm>
#include <cstdint>
#include <utility>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "absl/synchronization/notification.h"
#include "proto/worker.grpc.pb.h"
#include "transport/grpc_status.h"

namespace renga::cluster {

class ShardLoad::Reactor : public grpc::ClientReadReactor<proto::LoadProgress> {
 public:
  Reactor(std::shared_ptr<grpc::Channel> channel, proto::LoadRequest request,
          std::function<void()> on_change)
      : stub_(proto::Worker::NewStub(std::move(channel))),
        request_(std::move(request)),
        on_change_(std::move(on_change)) {
    stub_->async()->Load(&context_, &request_, this);
    StartRead(&message_);
    StartCall();
  }

  ~Reactor() override {
    context_.TryCancel();
    done_.WaitForNotification();
  }

  void OnReadDone(bool ok) override {
    if (!ok) return;
    {
      absl::MutexLock lock(&mutex_);
      // For people to look at: whatever a worker says stays in range.
      progress_.total = std::max<int64_t>(0, message_.total_bytes());
      progress_.done = std::clamp<int64_t>(message_.done_bytes(), 0, progress_.total);
      progress_.fetched = std::clamp<int64_t>(message_.fetched_bytes(), 0, progress_.total);
      progress_.cached = std::clamp<int64_t>(message_.cached_bytes(), 0, progress_.total);
      ready_ = message_.ready();
      ++reports_;
    }
    StartRead(&message_);
    on_change_();
  }

  void OnDone(const grpc::Status& status) override {
    {
      absl::MutexLock lock(&mutex_);
      result_ = transport::FromGrpcStatus(status, "loading the shard");
      if (result_->ok() && !ready_) {
        result_ = absl::InternalError("the load ended before the shard was ready");
      }
    }
    on_change_();
    done_.Notify();
  }

  LoadBytes progress() const {
    absl::MutexLock lock(&mutex_);
    return progress_;
  }
  uint64_t reports() const {
    absl::MutexLock lock(&mutex_);
    return reports_;
  }
  std::optional<absl::Status> result() const {
    absl::MutexLock lock(&mutex_);
    return result_;
  }

 private:
  const std::unique_ptr<proto::Worker::Stub> stub_;
  const proto::LoadRequest request_;
  const std::function<void()> on_change_;
  grpc::ClientContext context_;
  proto::LoadProgress message_;  // gRPC's between StartRead and OnReadDone
  absl::Notification done_;

  mutable absl::Mutex mutex_;
  LoadBytes progress_ ABSL_GUARDED_BY(mutex_);
  uint64_t reports_ ABSL_GUARDED_BY(mutex_) = 0;
  bool ready_ ABSL_GUARDED_BY(mutex_) = false;
  std::optional<absl::Status> result_ ABSL_GUARDED_BY(mutex_);
};

ShardLoad::ShardLoad(std::shared_ptr<grpc::Channel> channel, proto::LoadRequest request,
                     std::function<void()> on_change)
    : reactor_(std::make_unique<Reactor>(std::move(channel), std::move(request),
                                         std::move(on_change))) {}
ShardLoad::~ShardLoad() = default;
LoadBytes ShardLoad::progress() const { return reactor_->progress(); }
uint64_t ShardLoad::reports() const { return reactor_->reports(); }
std::optional<absl::Status> ShardLoad::result() const { return reactor_->result(); }

}  // namespace renga::cluster

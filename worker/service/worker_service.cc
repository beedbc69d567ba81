#include "worker/service/worker_service.h"

#include <grpcpp/server_context.h>
#include <grpcpp/support/server_callback.h>

#include <algorithm>
#include <utility>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "proto/worker.grpc.pb.h"
#include "transport/grpc_status.h"
#include "transport/identity.h"
#include "transport/local_worker.h"
#include "worker/service/server_stream.h"
#include "worker/service/steps_stream.h"

namespace renga::worker {
namespace {

// Edges a worker receives on, with room for those of former plans that are about to end.
constexpr size_t kMaxStepsStreams = 256;

// Sends back what it gets, one message at a time.
class ProbeStream : public grpc::ServerBidiReactor<proto::ProbeMessage, proto::ProbeMessage> {
 public:
  void Start() { StartRead(&message_); }
  void OnReadDone(bool ok) override {
    if (ok) {
      StartWrite(&message_);
    } else {
      Finish(grpc::Status::OK);
    }
  }
  void OnWriteDone(bool ok) override {
    if (ok) {
      StartRead(&message_);
    } else {
      Finish(grpc::Status::CANCELLED);
    }
  }
  void OnDone() override { delete this; }

 private:
  proto::ProbeMessage message_;
};

// Results that go out on a gRPC stream.
class StreamSink : public transport::ResultSink {
 public:
  explicit StreamSink(std::shared_ptr<ServerStream<proto::StepResult>> stream)
      : stream_(std::move(stream)) {}
  void Write(proto::StepResult result) override { stream_->Write(std::move(result)); }
  void End(const absl::Status& status) override { stream_->End(status); }

 private:
  const std::shared_ptr<ServerStream<proto::StepResult>> stream_;
};

}  // namespace

class WorkerService::Impl : public proto::Worker::CallbackService {
 public:
  explicit Impl(transport::PeerPolicy policy) : policy_(policy) {}

  void SetHost(ShardHost* host) { host_ = host; }
  void SetLinkMeter(LinkMeter* meter) { meter_ = meter; }

  grpc::ServerWriteReactor<proto::LoadProgress>* Load(grpc::CallbackServerContext* context,
                                                      const proto::LoadRequest* request) override {
    auto stream = ShardHost::LoadStream::Create();
    auto* reactor = stream.get();
    if (const absl::Status status = RequireCoordinator(*context); status.ok()) {
      host_->Load(*request, std::move(stream));
    } else {
      stream->End(status);
    }
    return reactor;
  }

  grpc::ServerUnaryReactor* Unload(grpc::CallbackServerContext* context,
                                   const proto::UnloadRequest* request,
                                   proto::UnloadReply*) override {
    grpc::ServerUnaryReactor* reactor = context->DefaultReactor();
    if (const absl::Status status = RequireCoordinator(*context); status.ok()) {
      // Finishes the call when the job is done, or dropped because the worker is leaving.
      std::shared_ptr<grpc::ServerUnaryReactor> finish(
          reactor, [](grpc::ServerUnaryReactor* call) { call->Finish(grpc::Status::OK); });
      host_->Unload(request->epoch(), [finish] {});
    } else {
      reactor->Finish(transport::ToGrpcStatus(status));
    }
    return reactor;
  }

  grpc::ServerBidiReactor<proto::StepFrame, proto::StepCredit>* Steps(
      grpc::CallbackServerContext* context) override {
    auto stream = StepsStream::Create(host_);
    const absl::Status status = transport::RequireMember(*context, policy_);
    if (!status.ok()) {
      stream->End(status);
      return stream.get();
    }
    {
      absl::MutexLock lock(&mutex_);
      streams_.erase(std::remove_if(streams_.begin(), streams_.end(),
                                    [](const auto& known) { return known.expired(); }),
                     streams_.end());
      if (streams_.size() >= kMaxStepsStreams) {
        stream->End(absl::ResourceExhaustedError("too many streams of steps to one worker"));
        return stream.get();
      }
      streams_.push_back(stream);
    }
    // After it was added: a plan loaded in between grants to every stream it finds.
    stream->Start(host_->edge_window());
    return stream.get();
  }

  grpc::ServerWriteReactor<proto::StepResult>* Results(
      grpc::CallbackServerContext* context, const proto::ResultsRequest* request) override {
    auto stream = ServerStream<proto::StepResult>::Create();
    auto* reactor = stream.get();
    if (const absl::Status status = RequireCoordinator(*context); status.ok()) {
      host_->AttachResults(request->epoch(), std::make_shared<StreamSink>(std::move(stream)));
    } else {
      stream->End(status);
    }
    return reactor;
  }

  grpc::ServerBidiReactor<proto::ProbeMessage, proto::ProbeMessage>* Probe(
      grpc::CallbackServerContext* context) override {
    auto* stream = new ProbeStream;
    if (const absl::Status status = transport::RequireMember(*context, policy_); status.ok()) {
      stream->Start();
    } else {
      stream->Finish(transport::ToGrpcStatus(status));
    }
    return stream;
  }

  grpc::ServerUnaryReactor* MeasureLink(grpc::CallbackServerContext* context,
                                        const proto::MeasureLinkRequest* request,
                                        proto::MeasureLinkReply* reply) override {
    grpc::ServerUnaryReactor* reactor = context->DefaultReactor();
    if (const absl::Status status = RequireCoordinator(*context); !status.ok()) {
      reactor->Finish(transport::ToGrpcStatus(status));
      return reactor;
    }
    meter_->Measure(*request, [reactor, reply](absl::StatusOr<proto::MeasureLinkReply> result) {
      if (result.ok()) *reply = *std::move(result);
      reactor->Finish(transport::ToGrpcStatus(result.status()));
    });
    return reactor;
  }

  void GrantWindows(uint32_t window) {
    absl::MutexLock lock(&mutex_);
    for (const std::weak_ptr<StepsStream>& known : streams_) {
      if (const auto stream = known.lock(); stream != nullptr) stream->GrantWindow(window);
    }
  }

 private:
  absl::Status RequireCoordinator(const grpc::CallbackServerContext& context) const {
    return transport::RequirePeer(context, policy_, transport::kCoordinatorName);
  }

  const transport::PeerPolicy policy_;
  ShardHost* host_ = nullptr;
  LinkMeter* meter_ = nullptr;
  absl::Mutex mutex_;
  std::vector<std::weak_ptr<StepsStream>> streams_ ABSL_GUARDED_BY(mutex_);
};

WorkerService::WorkerService(transport::PeerPolicy policy)
    : impl_(std::make_unique<Impl>(policy)) {}
WorkerService::~WorkerService() = default;
void WorkerService::SetHost(ShardHost* host) { impl_->SetHost(host); }
void WorkerService::SetLinkMeter(LinkMeter* meter) { impl_->SetLinkMeter(meter); }
grpc::Service* WorkerService::service() { return impl_.get(); }
void WorkerService::GrantWindows(uint32_t window) { impl_->GrantWindows(window); }

}  // namespace renga::worker

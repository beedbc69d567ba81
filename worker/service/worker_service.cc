#include "worker/service/worker_service.h"

#include <grpcpp/server_context.h>
#include <grpcpp/support/server_callback.h>

#include <utility>

#include "proto/worker.grpc.pb.h"
#include "transport/grpc_status.h"
#include "transport/identity.h"
#include "worker/service/server_stream.h"

namespace renga::worker {
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

 private:
  absl::Status RequireCoordinator(const grpc::CallbackServerContext& context) const {
    return transport::RequirePeer(context, policy_, transport::kCoordinatorName);
  }

  const transport::PeerPolicy policy_;
  ShardHost* host_ = nullptr;
  LinkMeter* meter_ = nullptr;
};

WorkerService::WorkerService(transport::PeerPolicy policy)
    : impl_(std::make_unique<Impl>(policy)) {}
WorkerService::~WorkerService() = default;
void WorkerService::SetHost(ShardHost* host) { impl_->SetHost(host); }
void WorkerService::SetLinkMeter(LinkMeter* meter) { impl_->SetLinkMeter(meter); }
grpc::Service* WorkerService::service() { return impl_.get(); }

}  // namespace renga::worker

#include "worker/service/testing/worker_driver.h"

#include <grpcpp/channel.h>
#include <grpcpp/client_context.h>

#include <chrono>
#include <utility>

#include "absl/synchronization/notification.h"
#include "proto/worker.grpc.pb.h"
#include "transport/edge_sender.h"
#include "transport/grpc_status.h"
#include "transport/wire.h"

namespace renga::worker::testing {
namespace {

void SetDeadline(grpc::ClientContext& context) {
  context.set_deadline(std::chrono::system_clock::now() + std::chrono::seconds(20));
}

}  // namespace

struct WorkerDriver::Impl {
  transport::Dialer* dialer;
  transport::PeerAddress worker;
  std::unique_ptr<proto::Worker::Stub> stub;

  std::unique_ptr<grpc::ClientContext> results_context;
  std::unique_ptr<grpc::ClientReader<proto::StepResult>> results;

  absl::Status broken;
  std::unique_ptr<absl::Notification> edge_broken;
  std::unique_ptr<transport::EdgeSender> edge;
};

WorkerDriver::WorkerDriver(transport::Dialer* dialer, const transport::PeerAddress& worker)
    : impl_(std::make_unique<Impl>()) {
  impl_->dialer = dialer;
  impl_->worker = worker;
  impl_->stub = proto::Worker::NewStub(dialer->Dial(worker, transport::ChannelPurpose::kControl));
}

WorkerDriver::~WorkerDriver() {
  CloseEdge();
  if (impl_->results == nullptr) return;
  impl_->results_context->TryCancel();
  proto::StepResult ignored;
  while (impl_->results->Read(&ignored)) {
  }
  impl_->results->Finish();
}

absl::StatusOr<proto::LoadProgress> WorkerDriver::Load(const proto::LoadRequest& request) {
  grpc::ClientContext context;
  SetDeadline(context);
  const auto reader = impl_->stub->Load(&context, request);
  proto::LoadProgress progress;
  proto::LoadProgress last;
  while (reader->Read(&progress)) {
    last = progress;
  }
  const grpc::Status status = reader->Finish();
  if (!status.ok()) return transport::FromGrpcStatus(status, "Load");
  if (!last.ready()) return absl::InternalError("a load that ends without being ready");
  return last;
}

absl::Status WorkerDriver::Unload(uint64_t epoch) {
  grpc::ClientContext context;
  SetDeadline(context);
  proto::UnloadRequest request;
  request.set_epoch(epoch);
  proto::UnloadReply reply;
  return transport::FromGrpcStatus(impl_->stub->Unload(&context, request, &reply), "Unload");
}

void WorkerDriver::OpenResults(uint64_t epoch) {
  impl_->results_context = std::make_unique<grpc::ClientContext>();
  SetDeadline(*impl_->results_context);
  proto::ResultsRequest request;
  request.set_epoch(epoch);
  impl_->results = impl_->stub->Results(impl_->results_context.get(), request);
}

absl::StatusOr<proto::StepResult> WorkerDriver::NextResult() {
  proto::StepResult result;
  if (impl_->results->Read(&result)) return result;
  const auto reader = std::move(impl_->results);
  const grpc::Status status = reader->Finish();
  if (status.ok()) return absl::OutOfRangeError("no more results");
  return transport::FromGrpcStatus(status, "Results");
}

absl::Status WorkerDriver::Send(proto::StepFrame frame) {
  if (impl_->edge == nullptr) {
    impl_->edge_broken = std::make_unique<absl::Notification>();
    impl_->edge = std::make_unique<transport::EdgeSender>(
        impl_->dialer->Dial(impl_->worker, transport::ChannelPurpose::kActivations),
        [impl = impl_.get()](const absl::Status& status) {
          impl->broken = status;
          impl->edge_broken->Notify();
        });
  }
  return impl_->edge->Send(std::move(frame));
}

absl::Status WorkerDriver::SendStep(const model::Step& step, std::span<const float> rows) {
  proto::StepFrame frame;
  *frame.mutable_step() = transport::ToProto(step);
  frame.set_target(proto::FRAME_TARGET_LAYERS);
  transport::PackActivations(rows, frame);
  return Send(std::move(frame));
}

void WorkerDriver::CloseEdge() { impl_->edge.reset(); }

absl::Status WorkerDriver::WaitForBrokenEdge() {
  impl_->edge_broken->WaitForNotification();
  return impl_->broken;
}

absl::StatusOr<proto::MeasureLinkReply> WorkerDriver::MeasureLink(
    const proto::MeasureLinkRequest& request) {
  grpc::ClientContext context;
  SetDeadline(context);
  proto::MeasureLinkReply reply;
  const grpc::Status status = impl_->stub->MeasureLink(&context, request, &reply);
  if (!status.ok()) return transport::FromGrpcStatus(status, "MeasureLink");
  return reply;
}

absl::StatusOr<std::string> WorkerDriver::Probe(const std::string& payload) {
  grpc::ClientContext context;
  SetDeadline(context);
  const auto stream = impl_->stub->Probe(&context);
  proto::ProbeMessage message;
  message.set_payload(payload);
  stream->Write(message);
  stream->WritesDone();
  proto::ProbeMessage answer;
  const bool read = stream->Read(&answer);
  proto::ProbeMessage more;
  while (stream->Read(&more)) {
  }
  const grpc::Status status = stream->Finish();
  if (!status.ok()) return transport::FromGrpcStatus(status, "Probe");
  if (!read) return absl::OutOfRangeError("no echo");
  return answer.payload();
}

}  // namespace renga::worker::testing

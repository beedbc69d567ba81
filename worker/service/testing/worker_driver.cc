#include "worker/service/testing/worker_driver.h"

#include <grpcpp/channel.h>
#include <grpcpp/client_context.h>

#include <chrono>
#include <deque>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/synchronization/mutex.h"
#include "absl/synchronization/notification.h"
#include "base/status_macros.h"
#include "proto/worker.grpc.pb.h"
#include "transport/edge_sender.h"
#include "transport/grpc_status.h"
#include "transport/message_socket.h"
#include "transport/wire.h"

namespace renga::worker::testing {
namespace {

void SetDeadline(grpc::ClientContext& context) {
  context.set_deadline(std::chrono::system_clock::now() + std::chrono::seconds(20));
}

}  // namespace

// A connection to the data port, and what comes on it.
class WorkerDriver::Messages {
 public:
  Messages(transport::Dialer& dialer, const transport::PeerAddress& worker,
           const transport::PeerHello& hello)
      : socket_({.on_message =
                     [this](std::string& message) {
                       absl::MutexLock lock(&mutex_);
                       messages_.push_back(std::move(message));
                       return absl::OkStatus();
                     },
                 .on_end =
                     [this](const absl::Status& reason) {
                       absl::MutexLock lock(&mutex_);
                       ended_ = reason;
                     }}) {
    socket_.Connect(worker, dialer.socket_credentials(), hello);
  }

  transport::MessageSocket& socket() { return socket_; }
  // The next message; what ended the connection; kDeadlineExceeded after some seconds.
  absl::StatusOr<std::string> Next() {
    const auto came = [this]() ABSL_SHARED_LOCKS_REQUIRED(mutex_) {
      return !messages_.empty() || !ended_.ok();
    };
    absl::MutexLock lock(&mutex_);
    if (!mutex_.AwaitWithTimeout(absl::Condition(&came), absl::Seconds(20))) {
      return absl::DeadlineExceededError("no message came");
    }
    if (messages_.empty()) return ended_;
    std::string message = std::move(messages_.front());
    messages_.pop_front();
    return message;
  }

 private:
  absl::Mutex mutex_;
  std::deque<std::string> messages_ ABSL_GUARDED_BY(mutex_);
  absl::Status ended_ ABSL_GUARDED_BY(mutex_);
  transport::MessageSocket socket_;
};

struct WorkerDriver::Impl {
  transport::Dialer* dialer;
  transport::PeerAddress data_port;
  std::unique_ptr<proto::Worker::Stub> stub;
  std::unique_ptr<Messages> results;

  absl::Status broken;
  std::unique_ptr<absl::Notification> edge_broken;
  std::unique_ptr<transport::EdgeSender> edge;
  std::vector<std::unique_ptr<Messages>> edges;  // more of them
};

WorkerDriver::WorkerDriver(transport::Dialer* dialer, WorkerServer& worker, const std::string& name)
    : impl_(std::make_unique<Impl>()) {
  impl_->dialer = dialer;
  impl_->data_port = {.address = absl::StrCat("127.0.0.1:", worker.data_port()), .name = name};
  impl_->stub = proto::Worker::NewStub(
      dialer->Dial({.address = absl::StrCat("127.0.0.1:", worker.port()), .name = name},
                   transport::ChannelPurpose::kControl));
}

WorkerDriver::~WorkerDriver() = default;

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
  impl_->results = std::make_unique<Messages>(
      *impl_->dialer, impl_->data_port,
      transport::PeerHello{.epoch = epoch, .purpose = transport::PeerPurpose::kResults});
}

absl::StatusOr<proto::StepResult> WorkerDriver::NextResult() {
  RENGA_ASSIGN_OR_RETURN(const std::string message, impl_->results->Next());
  proto::StepResult result;
  if (!result.ParseFromString(message)) return absl::DataLossError("no result");
  return result;
}

absl::Status WorkerDriver::Withdraw(uint64_t epoch, const std::vector<uint64_t>& numbers) {
  proto::StepWithdrawal message;
  message.set_epoch(epoch);
  message.mutable_numbers()->Add(numbers.begin(), numbers.end());
  return SendResultsBytes(message.SerializeAsString());
}

absl::Status WorkerDriver::SendResultsBytes(const std::string& message) {
  return impl_->results->socket().SendBytes(message);
}

absl::Status WorkerDriver::Send(proto::StepFrame frame) {
  if (impl_->edge == nullptr) {
    impl_->edge_broken = std::make_unique<absl::Notification>();
    impl_->edge = std::make_unique<transport::EdgeSender>(
        *impl_->dialer, impl_->data_port, [impl = impl_.get()](const absl::Status& status) {
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
  Messages echo(*impl_->dialer, impl_->data_port, {.purpose = transport::PeerPurpose::kProbe});
  RENGA_RETURN_IF_ERROR(echo.socket().SendBytes(payload));
  return echo.Next();
}

absl::StatusOr<uint32_t> WorkerDriver::OpenEdge() {
  impl_->edges.push_back(
      std::make_unique<Messages>(*impl_->dialer, impl_->data_port,
                                 transport::PeerHello{.purpose = transport::PeerPurpose::kSteps}));
  RENGA_ASSIGN_OR_RETURN(const std::string message, impl_->edges.back()->Next());
  proto::StepCredit credit;
  if (!credit.ParseFromString(message)) return absl::DataLossError("no credit");
  return credit.frames();
}

void WorkerDriver::CloseEdges() { impl_->edges.clear(); }

absl::Status WorkerDriver::SendWithoutCredit() {
  Messages edge(*impl_->dialer, impl_->data_port, {.purpose = transport::PeerPurpose::kSteps});
  RENGA_RETURN_IF_ERROR(edge.socket().Send(proto::StepFrame()));
  return edge.Next().status();
}

}  // namespace renga::worker::testing

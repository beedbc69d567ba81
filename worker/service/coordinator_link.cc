#include "worker/service/coordinator_link.h"

#include <grpcpp/channel.h>
#include <grpcpp/client_context.h>
#include <grpcpp/support/client_callback.h>

#include <algorithm>
#include <optional>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/synchronization/notification.h"
#include "absl/time/clock.h"
#include "base/log.h"
#include "base/status_macros.h"
#include "proto/cluster.grpc.pb.h"
#include "transport/grpc_status.h"
#include "transport/hello.h"

namespace renga::worker {
namespace {

constexpr absl::Duration kFirstRetryDelay = absl::Milliseconds(100);
constexpr absl::Duration kMaxRetryDelay = absl::Seconds(2);
// A coordinator that takes the call answers hello at once.
constexpr absl::Duration kWelcomeTimeout = absl::Seconds(5);
// And ends the stream of a worker that leaves at once.
constexpr absl::Duration kLeaveTimeout = absl::Seconds(1);
constexpr uint32_t kMinHeartbeatMs = 50;
constexpr uint32_t kMaxHeartbeatMs = 10'000;

// Refusals that another try would not change.
bool IsFinal(const absl::Status& status) {
  switch (status.code()) {
    case absl::StatusCode::kInvalidArgument:
    case absl::StatusCode::kNotFound:
    case absl::StatusCode::kAlreadyExists:
    case absl::StatusCode::kPermissionDenied:
    case absl::StatusCode::kFailedPrecondition:
    case absl::StatusCode::kAborted:
    case absl::StatusCode::kOutOfRange:
    case absl::StatusCode::kUnimplemented:
    case absl::StatusCode::kUnauthenticated:
      return true;
    default:
      return false;
  }
}

}  // namespace

// One Join stream.
class CoordinatorLink::Session
    : public grpc::ClientBidiReactor<proto::WorkerReport, proto::CoordinatorNotice> {
 public:
  Session(const Options& options, proto::Hello hello)
      : stub_(proto::Cluster::NewStub(
            options.dialer->Dial(options.coordinator, transport::ChannelPurpose::kControl))) {
    *report_.mutable_hello() = std::move(hello);
    stub_->async()->Join(&context_, this);
    StartRead(&notice_);
    writing_ = true;
    StartWrite(&report_);
    StartCall();
  }
  ~Session() override {
    context_.TryCancel();
    done_.WaitForNotification();
  }

  // The welcome, or why there is none; after `timeout` kUnavailable. An end within the wait is
  // waited for.
  absl::StatusOr<proto::Welcome> WaitForWelcome(absl::Duration timeout) {
    absl::MutexLock lock(&mutex_);
    const auto arrived = [this]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
      return welcome_.has_value() || end_.has_value();
    };
    if (!mutex_.AwaitWithTimeout(absl::Condition(&arrived), timeout)) {
      return absl::UnavailableError("it does not answer");
    }
    if (end_.has_value()) return *end_;
    return *welcome_;
  }

  // Whether the stream goes on after `timeout`; false at once when it ends or is to be left.
  bool GoesOnFor(absl::Duration timeout) {
    absl::MutexLock lock(&mutex_);
    const auto over = [this]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
      return end_.has_value() || leaving_;
    };
    return !mutex_.AwaitWithTimeout(absl::Condition(&over), timeout);
  }

  // The stream's end, for which it waits `timeout`.
  absl::Status WaitForEnd(absl::Duration timeout) {
    absl::MutexLock lock(&mutex_);
    const auto arrived = [this]()
                             ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) { return end_.has_value(); };
    mutex_.AwaitWithTimeout(absl::Condition(&arrived), timeout);
    return end_.value_or(absl::UnavailableError("it does not answer"));
  }

  // Left out when the one before is still being written.
  void SendHeartbeat(proto::Heartbeat heartbeat) {
    absl::MutexLock lock(&mutex_);
    if (writing_ || reads_over_ || leaving_) return;
    *report_.mutable_heartbeat() = std::move(heartbeat);
    Write();
  }

  // From any thread. A coordinator that has not welcomed this worker is not told.
  void Leave() {
    absl::MutexLock lock(&mutex_);
    if (!welcome_.has_value()) context_.TryCancel();
    leaving_ = true;
    if (!writing_ && !reads_over_) WriteLeave();
  }

  void OnReadDone(bool ok) override {
    {
      absl::MutexLock lock(&mutex_);
      if (!ok) {
        reads_over_ = true;
        return;
      }
      if (notice_.has_welcome()) welcome_ = notice_.welcome();
      if (notice_.has_goodbye()) goodbye_ = notice_.goodbye();
    }
    StartRead(&notice_);
  }
  void OnWriteDone(bool ok) override {
    absl::MutexLock lock(&mutex_);
    writing_ = false;
    if (ok && leaving_) WriteLeave();
  }
  void OnDone(const grpc::Status& status) override {
    {
      absl::MutexLock lock(&mutex_);
      if (goodbye_.has_value()) {
        end_ = absl::Status(transport::StatusCodeFromWire(goodbye_->code()), goodbye_->message());
      } else {
        end_ = transport::FromGrpcStatus(status, "Join");
      }
      if (end_->ok()) end_ = absl::UnavailableError("it ended the membership");
    }
    done_.Notify();
  }

 private:
  // While a read is under way, or in the reaction to a write, the call goes on, so this is in time.
  void Write() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    writing_ = true;
    StartWrite(&report_);
  }
  void WriteLeave() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    if (report_.has_leave()) return;
    report_.mutable_leave();
    Write();
  }

  const std::unique_ptr<proto::Cluster::Stub> stub_;
  grpc::ClientContext context_;
  proto::CoordinatorNotice notice_;  // gRPC's between StartRead and OnReadDone
  absl::Notification done_;

  absl::Mutex mutex_;
  proto::WorkerReport report_ ABSL_GUARDED_BY(mutex_);  // gRPC's while writing_
  bool writing_ ABSL_GUARDED_BY(mutex_) = false;
  bool reads_over_ ABSL_GUARDED_BY(mutex_) = false;
  bool leaving_ ABSL_GUARDED_BY(mutex_) = false;
  std::optional<proto::Welcome> welcome_ ABSL_GUARDED_BY(mutex_);
  std::optional<proto::Goodbye> goodbye_ ABSL_GUARDED_BY(mutex_);
  std::optional<absl::Status> end_ ABSL_GUARDED_BY(mutex_);
};

// Lets Stop reach the session that is under way.
class CoordinatorLink::SessionRegistration {
 public:
  SessionRegistration(CoordinatorLink* link, Session* session) : link_(link) {
    absl::MutexLock lock(&link_->mutex_);
    link_->session_ = session;
    if (link_->stopping_) session->Leave();
  }
  ~SessionRegistration() {
    absl::MutexLock lock(&link_->mutex_);
    link_->session_ = nullptr;
  }
  SessionRegistration(const SessionRegistration&) = delete;
  SessionRegistration& operator=(const SessionRegistration&) = delete;

 private:
  CoordinatorLink* const link_;
};

CoordinatorLink::CoordinatorLink(Options options)
    : options_(std::move(options)),
      last_contact_(absl::Now()),
      retry_delay_(kFirstRetryDelay),
      thread_([this] { Run(); }) {}

CoordinatorLink::~CoordinatorLink() { Stop(); }

void CoordinatorLink::Stop() {
  {
    absl::MutexLock lock(&mutex_);
    stopping_ = true;
    if (session_ != nullptr) session_->Leave();
  }
  if (thread_.joinable()) thread_.join();
}

absl::Status CoordinatorLink::WaitForWelcome() {
  absl::MutexLock lock(&mutex_);
  const auto known = [this]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) { return welcomed_ || ended_; };
  mutex_.Await(absl::Condition(&known));
  return welcomed_ ? absl::OkStatus() : end_;
}

absl::Status CoordinatorLink::Wait() {
  absl::MutexLock lock(&mutex_);
  mutex_.Await(absl::Condition(&ended_));
  return end_;
}

void CoordinatorLink::Welcomed() {
  absl::MutexLock lock(&mutex_);
  welcomed_ = true;
  last_contact_ = absl::Now();
}

void CoordinatorLink::Tell(const std::string& line) const {
  RENGA_LOG(INFO) << line;
  if (options_.on_event) options_.on_event(line);
}

void CoordinatorLink::Run() {
  bool go_on = true;
  while (go_on) {
    const absl::Time begin = absl::Now();
    const absl::Status status = base::Annotate(
        RunSession(), absl::StrCat("the coordinator at ", options_.coordinator.address));
    go_on = GoOn(status, begin);
  }
}

bool CoordinatorLink::GoOn(const absl::Status& status, absl::Time session_begin) {
  std::string event;
  bool final = false;
  {
    absl::MutexLock lock(&mutex_);
    const bool was_member = last_contact_ >= session_begin;
    if (was_member) {
      last_contact_ = absl::Now();
      retry_delay_ = kFirstRetryDelay;
    }
    const absl::Duration patience = welcomed_ ? options_.rejoin_timeout : options_.join_timeout;
    final = IsFinal(status) || absl::Now() - last_contact_ >= patience;
    if (stopping_) {
      event = welcomed_ ? "left" : "";
    } else if (final) {
      event = welcomed_ ? absl::StrCat("left: ", status.message()) : "";
    } else if (was_member) {
      event = absl::StrCat("joining again: ", status.message());
    }
  }
  if (!event.empty()) Tell(event);
  absl::MutexLock lock(&mutex_);
  if (!stopping_ && !final) {
    mutex_.AwaitWithTimeout(absl::Condition(&stopping_), retry_delay_);
    retry_delay_ = std::min(retry_delay_ * 2, kMaxRetryDelay);
  }
  if (!stopping_ && !final) return true;
  ended_ = true;
  end_ = stopping_ ? absl::OkStatus() : status;
  return false;
}

absl::Status CoordinatorLink::RunSession() {
  proto::Hello hello = options_.hello();
  const std::string name = hello.worker_name();
  Session session(options_, std::move(hello));
  const SessionRegistration registration(this, &session);
  RENGA_ASSIGN_OR_RETURN(const proto::Welcome welcome, session.WaitForWelcome(kWelcomeTimeout));
  RENGA_RETURN_IF_ERROR(transport::CheckBuild(welcome.build(), "the coordinator"));
  Welcomed();
  Tell(absl::StrCat("joined as ", name, " (", welcome.worker_id(), ")"));
  const absl::Duration interval =
      absl::Milliseconds(std::clamp(welcome.heartbeat_ms(), kMinHeartbeatMs, kMaxHeartbeatMs));
  do {
    session.SendHeartbeat(options_.heartbeat());
  } while (session.GoesOnFor(interval));
  return session.WaitForEnd(kLeaveTimeout);
}

}  // namespace renga::worker

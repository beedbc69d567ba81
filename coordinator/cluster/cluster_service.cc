#include "coordinator/cluster/cluster_service.h"

#include <grpcpp/server_context.h>
#include <grpcpp/support/server_callback.h>

#include <optional>
#include <string>
#include <thread>
#include <utility>

#include "absl/base/thread_annotations.h"
#include "absl/container/flat_hash_set.h"
#include "absl/strings/str_cat.h"
#include "absl/synchronization/mutex.h"
#include "base/log.h"
#include "base/status_macros.h"
#include "coordinator/cluster/guess_limiter.h"
#include "coordinator/cluster/join_checks.h"
#include "proto/cluster.grpc.pb.h"
#include "transport/grpc_status.h"
#include "transport/hello.h"

namespace renga::cluster {
namespace {

constexpr uint32_t kHeartbeatMs = 1000;
constexpr absl::Duration kWatchInterval = absl::Milliseconds(200);
// How long a stream may stay without its hello.
constexpr absl::Duration kHelloLimit = absl::Seconds(10);
// A worker that is refused may try again every other second; once in a while is enough to read it.
constexpr absl::Duration kRefusalLogInterval = absl::Minutes(1);

}  // namespace

class ClusterService::Impl : public proto::Cluster::CallbackService {
 public:
  explicit Impl(const Options& options) : options_(options), watch_([this] { Watch(); }) {}
  ~Impl() override {
    {
      absl::MutexLock lock(&mutex_);
      stopping_ = true;
    }
    watch_.join();
  }

  grpc::ServerUnaryReactor* Enroll(grpc::CallbackServerContext* context,
                                   const proto::EnrollRequest* request,
                                   proto::EnrollReply* reply) override {
    grpc::ServerUnaryReactor* reactor = context->DefaultReactor();
    const std::string host = HostOfPeer(context->peer());
    const absl::Status status = DoEnroll(host, *request, *reply);
    if (!status.ok()) LogRefusal(host, status);
    reactor->Finish(transport::ToGrpcStatus(status));
    return reactor;
  }

  grpc::ServerBidiReactor<proto::WorkerReport, proto::CoordinatorNotice>* Join(
      grpc::CallbackServerContext* context) override;

  void SayGoodbye();

 private:
  class JoinStream;

  absl::Status DoEnroll(const std::string& host, const proto::EnrollRequest& request,
                        proto::EnrollReply& reply);
  void LogRefusal(const std::string& host, const absl::Status& status);
  void Watch();
  void EndObsoleteStreams();
  bool IsLeaving() {
    absl::MutexLock lock(&mutex_);
    return leaving_;
  }

  const Options options_;
  absl::Mutex mutex_;
  bool stopping_ ABSL_GUARDED_BY(mutex_) = false;
  bool leaving_ ABSL_GUARDED_BY(mutex_) = false;
  GuessLimiter guesses_ ABSL_GUARDED_BY(mutex_);
  std::string logged_refusal_ ABSL_GUARDED_BY(mutex_);  // the last one, and when
  absl::Duration logged_at_ ABSL_GUARDED_BY(mutex_);
  // A stream is here from its beginning to OnDone, so those found here under the lock are alive.
  absl::flat_hash_set<JoinStream*> streams_ ABSL_GUARDED_BY(mutex_);
  std::thread watch_;  // last: it uses the rest
};

// One worker's membership. Locks: the service's before the stream's, never the other way.
class ClusterService::Impl::JoinStream
    : public grpc::ServerBidiReactor<proto::WorkerReport, proto::CoordinatorNotice> {
 public:
  JoinStream(Impl* service, grpc::CallbackServerContext* context)
      : service_(service),
        source_{context->peer(), "", service->options_.policy},
        opened_(service->options_.membership->Now()) {
    const absl::StatusOr<std::string> name = transport::PeerName(*context, source_.policy);
    if (!name.ok()) {
      End(name.status());
      return;
    }
    source_.id = *name;
    absl::MutexLock lock(&mutex_);
    StartRead(&report_);
  }

  void OnReadDone(bool ok) override {
    if (!ok) {
      LoseMember();
      End(absl::OkStatus());
      return;
    }
    if (report_.has_leave()) {
      LetMemberLeave();
      End(absl::OkStatus());
      return;
    }
    const absl::Status status = TakeReport();
    if (!status.ok()) {
      service_->LogRefusal(HostOfPeer(source_.peer), status);
      End(status);
      return;
    }
    absl::MutexLock lock(&mutex_);
    if (!finished_) StartRead(&report_);
  }

  void OnWriteDone(bool ok) override {
    absl::MutexLock lock(&mutex_);
    writing_ = false;
    if (!ok && !goodbye_.has_value()) goodbye_ = absl::OkStatus();
    if (goodbye_.has_value()) FinishLocked();
  }

  void OnCancel() override { LoseMember(); }

  void OnDone() override {
    LoseMember();
    {
      absl::MutexLock lock(&service_->mutex_);
      service_->streams_.erase(this);
    }
    delete this;
  }

  // Ends the stream; an error is told to the worker as a Goodbye too. From any thread.
  void End(absl::Status status) {
    absl::MutexLock lock(&mutex_);
    if (finished_ || goodbye_.has_value()) return;
    goodbye_ = std::move(status);
    if (!writing_) FinishLocked();
  }

  // Why the stream should not go on, or OK.
  absl::Status Standing(absl::Duration now) const {
    const std::optional<Member> member = ThisMember();
    if (!member.has_value()) {
      return now - opened_ <= kHelloLimit
                 ? absl::OkStatus()
                 : absl::DeadlineExceededError("no hello came on the stream");
    }
    if (service_->options_.membership->IsAlive(member->id, member->incarnation)) {
      return absl::OkStatus();
    }
    return absl::UnavailableError(
        absl::StrCat("worker ", member->id, " was counted as lost; join again"));
  }

 private:
  // Only reads bring the member in, and they come one at a time; the lock is for the others.
  absl::Status TakeReport() {
    Membership& membership = *service_->options_.membership;
    const std::optional<Member> member = ThisMember();
    if (!member.has_value()) {
      if (!report_.has_hello()) {
        return absl::InvalidArgumentError("a Join stream begins with a hello");
      }
      RENGA_ASSIGN_OR_RETURN(const JoinRequest request, CheckHello(report_.hello(), source_));
      RENGA_ASSIGN_OR_RETURN(Member joined, membership.Join(request));
      SendWelcome(std::move(joined));
      return absl::OkStatus();
    }
    if (!report_.has_heartbeat()) return absl::InvalidArgumentError("a report without content");
    RENGA_ASSIGN_OR_RETURN(const Heartbeat heartbeat, CheckHeartbeat(report_.heartbeat()));
    if (!membership.Heard(member->id, member->incarnation, heartbeat)) {
      return absl::UnavailableError("this worker was counted as lost; join again");
    }
    return absl::OkStatus();
  }

  void SendWelcome(Member joined) {
    absl::MutexLock lock(&mutex_);
    member_ = std::move(joined);
    if (finished_) return;
    proto::Welcome* welcome = notice_.mutable_welcome();
    *welcome->mutable_build() = transport::ThisBuild();
    welcome->set_worker_id(member_->id);
    welcome->set_heartbeat_ms(kHeartbeatMs);
    writing_ = true;
    StartWrite(&notice_);
  }

  void FinishLocked() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    if (finished_) return;
    finished_ = true;
    if (goodbye_->ok()) {
      Finish(grpc::Status::OK);
      return;
    }
    proto::Goodbye* goodbye = notice_.mutable_goodbye();
    goodbye->set_code(static_cast<int>(goodbye_->code()));
    goodbye->set_message(std::string(goodbye_->message()));
    StartWriteAndFinish(&notice_, grpc::WriteOptions(), transport::ToGrpcStatus(*goodbye_));
  }

  std::optional<Member> ThisMember() const {
    absl::MutexLock lock(&mutex_);
    return member_;
  }

  // Unless it left before, or it is the coordinator that leaves.
  void LoseMember() {
    const std::optional<Member> member = ThisMember();
    if (!member.has_value() || service_->IsLeaving()) return;
    service_->options_.membership->Lose(member->id, member->incarnation, "its connection ended");
  }

  void LetMemberLeave() {
    const std::optional<Member> member = ThisMember();
    if (!member.has_value()) return;
    service_->options_.membership->Leave(member->id, member->incarnation);
  }

  Impl* const service_;
  HelloSource source_;
  const absl::Duration opened_;
  proto::WorkerReport report_;  // of the read that is under way
  mutable absl::Mutex mutex_;
  proto::CoordinatorNotice notice_ ABSL_GUARDED_BY(mutex_);  // of the write that is under way
  bool writing_ ABSL_GUARDED_BY(mutex_) = false;
  bool finished_ ABSL_GUARDED_BY(mutex_) = false;
  std::optional<absl::Status> goodbye_ ABSL_GUARDED_BY(mutex_);
  std::optional<Member> member_ ABSL_GUARDED_BY(mutex_);
};

grpc::ServerBidiReactor<proto::WorkerReport, proto::CoordinatorNotice>* ClusterService::Impl::Join(
    grpc::CallbackServerContext* context) {
  absl::MutexLock lock(&mutex_);
  auto* stream = new JoinStream(this, context);
  streams_.insert(stream);
  if (leaving_) stream->End(absl::UnavailableError("the coordinator is leaving"));
  return stream;
}

absl::Status ClusterService::Impl::DoEnroll(const std::string& host,
                                            const proto::EnrollRequest& request,
                                            proto::EnrollReply& reply) {
  if (options_.authority == nullptr) {
    return absl::FailedPreconditionError("this cluster runs without certificates (--insecure)");
  }
  RENGA_RETURN_IF_ERROR(transport::CheckBuild(request.build(), "the worker"));
  RENGA_RETURN_IF_ERROR(CheckWorkerName(request.worker_name()));
  {
    absl::MutexLock lock(&mutex_);
    if (!guesses_.Allows(host, options_.membership->Now())) {
      return absl::ResourceExhaustedError(
          absl::StrCat("too many wrong tokens from ", host, "; wait a few seconds"));
    }
    if (!options_.authority->TokenMatches(request.token())) {
      guesses_.WrongGuess(host, options_.membership->Now());
      return absl::PermissionDeniedError(
          "the token is not this cluster's: use the join line that `renga up` prints");
    }
  }
  RENGA_ASSIGN_OR_RETURN(
      *reply.mutable_certificate_pem(),
      options_.authority->SignRequest(request.certificate_request_pem(), NewWorkerId()));
  return absl::OkStatus();
}

void ClusterService::Impl::LogRefusal(const std::string& host, const absl::Status& status) {
  std::string line = absl::StrCat("a worker at ", host, " is refused: ", status.message());
  const absl::Duration now = options_.membership->Now();
  {
    absl::MutexLock lock(&mutex_);
    if (line == logged_refusal_ && now - logged_at_ < kRefusalLogInterval) return;
    logged_refusal_ = line;
    logged_at_ = now;
  }
  RENGA_LOG(WARNING) << line;
}

void ClusterService::Impl::Watch() {
  while (true) {
    {
      absl::MutexLock lock(&mutex_);
      mutex_.AwaitWithTimeout(absl::Condition(&stopping_), kWatchInterval);
      if (stopping_) return;
    }
    options_.membership->LoseSilent();
    EndObsoleteStreams();
  }
}

void ClusterService::Impl::EndObsoleteStreams() {
  absl::MutexLock lock(&mutex_);
  const absl::Duration now = options_.membership->Now();
  for (JoinStream* stream : streams_) {
    absl::Status standing = stream->Standing(now);
    if (!standing.ok()) stream->End(std::move(standing));
  }
}

void ClusterService::Impl::SayGoodbye() {
  absl::MutexLock lock(&mutex_);
  leaving_ = true;
  for (JoinStream* stream : streams_) {
    stream->End(absl::UnavailableError("the coordinator is leaving"));
  }
}

ClusterService::ClusterService(const Options& options) : impl_(std::make_unique<Impl>(options)) {}
ClusterService::~ClusterService() = default;
grpc::Service* ClusterService::service() { return impl_.get(); }
void ClusterService::SayGoodbye() { impl_->SayGoodbye(); }

}  // namespace renga::cluster

#include "coordinator/cluster/testing/fake_workers.h"

#include <grpcpp/security/server_credentials.h>
#include <grpcpp/server_builder.h>
#include <grpcpp/server_context.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstring>
#include <deque>
#include <numeric>
#include <set>
#include <utility>

#include "absl/strings/str_cat.h"
#include "proto/worker.grpc.pb.h"
#include "transport/message_socket.h"
#include "transport/wire.h"

namespace renga::cluster {

float FakeLogit(float seed, int64_t id) {
  const auto mixed = static_cast<uint64_t>(id) * 2654435761u + static_cast<uint64_t>(seed * 8);
  return static_cast<float>(mixed % 13) - 6.0f;
}

std::vector<model::HeadRow> FakeAnswer(const model::Step& step,
                                       const std::vector<float>& activations, int64_t d_model,
                                       int64_t row_begin, int64_t row_end) {
  std::vector<model::HeadRow> answer;
  int64_t token = 0;
  for (const model::StepSlot& slot : step.slots) {
    token += slot.token_count;
    for (int64_t i = token - slot.output_count; i < token; ++i) {
      const float seed = activations[static_cast<size_t>(i * d_model)];
      model::HeadRow row;
      std::vector<int32_t> ids(static_cast<size_t>(row_end - row_begin));
      std::iota(ids.begin(), ids.end(), static_cast<int32_t>(row_begin));
      if (slot.top_k > 0) {
        std::stable_sort(ids.begin(), ids.end(), [&](int32_t a, int32_t b) {
          return FakeLogit(seed, a) > FakeLogit(seed, b);
        });
        ids.resize(std::min(ids.size(), static_cast<size_t>(slot.top_k)));
      }
      for (int32_t id : ids) row.logits.push_back(FakeLogit(seed, id));
      if (slot.top_k > 0) row.ids = ids;
      row.max_logit = 6;
      for (int64_t id = row_begin; id < row_end; ++id) {
        row.sum_exp += std::exp(FakeLogit(seed, id) - 6.0);
      }
      answer.push_back(std::move(row));
    }
  }
  return answer;
}

class FakeWorker::Service : public proto::Worker::Service {
 public:
  explicit Service(FakeWorkers* others) : others_(others) {}

  grpc::Status Load(grpc::ServerContext* context, const proto::LoadRequest* request,
                    grpc::ServerWriter<proto::LoadProgress>* writer) override {
    Misbehaviour misbehaviour;
    {
      absl::MutexLock lock(&mutex_);
      ++load_count_;
      request_ = *request;
      results_.clear();
      results_socket_ = nullptr;
      misbehaviour = misbehaviour_;
    }
    if (misbehaviour == Misbehaviour::kRefusesLoad) {
      return {grpc::StatusCode::RESOURCE_EXHAUSTED, "60 MiB wanted, 50 MiB offered"};
    }
    proto::LoadProgress progress;
    progress.set_total_bytes(1000);
    progress.set_done_bytes(400);
    progress.set_cached_bytes(300);
    progress.set_fetched_bytes(100);
    writer->Write(progress);
    if (misbehaviour == Misbehaviour::kNeverReady) return grpc::Status::OK;
    while (misbehaviour == Misbehaviour::kHangsInLoad) {
      absl::MutexLock lock(&mutex_);
      mutex_.AwaitWithTimeout(absl::Condition(&killed_), absl::Milliseconds(10));
      if (killed_ || context->IsCancelled()) return grpc::Status::CANCELLED;
    }
    progress.set_done_bytes(1000);
    progress.set_ready(true);
    writer->Write(progress);
    return grpc::Status::OK;
  }

  // A connection to the data port.
  void Serve(const transport::PeerHello& hello, std::unique_ptr<transport::SecureSocket> socket) {
    transport::MessageSocket* connection = nullptr;
    {
      absl::MutexLock lock(&mutex_);
      if (killed_ || (hello.purpose == transport::PeerPurpose::kProbe &&
                      misbehaviour_ == Misbehaviour::kDiesOnStep)) {
        return;
      }
      connections_.push_back(Open(hello.purpose));
      connection = connections_.back().get();
      // One of an earlier plan may be greeted after one of this.
      if (hello.purpose == transport::PeerPurpose::kResults && hello.epoch == request_.epoch()) {
        results_socket_ = connection;
      }
    }
    connection->Accept(std::move(socket));
    if (hello.purpose == transport::PeerPurpose::kSteps) {
      proto::StepCredit credit;
      credit.set_frames(transport::kEdgeWindowFrames);
      connection->Send(credit).IgnoreError();
    }
    absl::MutexLock lock(&mutex_);
    SendResults();
  }

  // By the thread that ends the worker: its connections end with it.
  void EndConnections() {
    std::vector<std::unique_ptr<transport::MessageSocket>> connections;
    {
      absl::MutexLock lock(&mutex_);
      killed_ = true;
      results_socket_ = nullptr;
      connections.swap(connections_);
    }
  }

  static grpc::Status DeadStatus() { return {grpc::StatusCode::UNAVAILABLE, "killed"}; }

  // Round trips of 100 us, and 1 us more for each kilobyte.
  grpc::Status MeasureLink(grpc::ServerContext*, const proto::MeasureLinkRequest* request,
                           proto::MeasureLinkReply* reply) override {
    absl::MutexLock lock(&mutex_);
    measured_.push_back(request->peer().worker_id());
    if (misbehaviour_ == Misbehaviour::kDiesOnStep) return DeadStatus();
    for (const uint32_t bytes : request->payload_bytes()) {
      proto::RoundTripTime& time = *reply->add_times();
      time.set_payload_bytes(misbehaviour_ == Misbehaviour::kWrongSizes ? 0 : bytes);
      time.set_p50_us(100 + bytes / 1000.0);
      time.set_p99_us(200 + bytes / 1000.0);
    }
    return grpc::Status::OK;
  }

  void Answer(const proto::StepFrame& frame);

  absl::Mutex mutex_;
  std::vector<std::unique_ptr<transport::MessageSocket>> connections_ ABSL_GUARDED_BY(mutex_);
  transport::MessageSocket* results_socket_ ABSL_GUARDED_BY(mutex_) = nullptr;
  std::vector<std::string> measured_ ABSL_GUARDED_BY(mutex_);
  bool killed_ ABSL_GUARDED_BY(mutex_) = false;
  int load_count_ ABSL_GUARDED_BY(mutex_) = 0;
  Misbehaviour misbehaviour_ ABSL_GUARDED_BY(mutex_) = Misbehaviour::kNone;
  proto::LoadRequest request_ ABSL_GUARDED_BY(mutex_);
  std::deque<proto::StepResult> results_ ABSL_GUARDED_BY(mutex_);
  std::deque<proto::StepResult> waiting_ ABSL_GUARDED_BY(mutex_);  // for their withdrawal
  std::set<uint64_t> withdrawn_ ABSL_GUARDED_BY(mutex_);

 private:
  std::unique_ptr<transport::MessageSocket> Open(transport::PeerPurpose purpose) {
    auto holder = std::make_shared<transport::MessageSocket*>(nullptr);
    auto socket = std::make_unique<transport::MessageSocket>(transport::MessageSocket::Handlers{
        .on_message = [this, purpose, holder](const std::string& message) -> absl::Status {
          if (purpose == transport::PeerPurpose::kProbe) return (*holder)->SendBytes(message);
          if (purpose == transport::PeerPurpose::kResults) return TakeWithdrawal(message);
          proto::StepFrame frame;
          if (!frame.ParseFromString(message)) return absl::InvalidArgumentError("no frame");
          others_->Answer(frame);
          proto::StepCredit credit;
          credit.set_frames(1);
          return (*holder)->Send(credit);
        },
        .on_end = [](const absl::Status&) {}});
    *holder = socket.get();
    return socket;
  }
  absl::Status TakeWithdrawal(const std::string& message) {
    proto::StepWithdrawal withdrawal;
    if (!withdrawal.ParseFromString(message)) return absl::InvalidArgumentError("no withdrawal");
    absl::MutexLock lock(&mutex_);
    if (withdrawal.epoch() != request_.epoch()) return absl::OkStatus();
    withdrawn_.insert(withdrawal.numbers().begin(), withdrawal.numbers().end());
    AnswerWithdrawn();
    SendResults();
    return absl::OkStatus();
  }
  void AnswerWithdrawn() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    for (; !waiting_.empty() && withdrawn_.contains(waiting_.front().number());
         waiting_.pop_front()) {
      results_.push_back(waiting_.front());
    }
  }
  void Spoil(proto::StepResult& result) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void SendResults() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    if (results_socket_ == nullptr) return;
    if (killed_) return results_socket_->End(absl::UnavailableError("killed"));
    for (; !results_.empty(); results_.pop_front()) {
      results_socket_->Send(results_.front()).IgnoreError();
    }
  }

  FakeWorkers* const others_;
};

void FakeWorker::Service::Answer(const proto::StepFrame& frame) {
  absl::MutexLock lock(&mutex_);
  const int64_t row_begin = request_.head_rows().begin();
  const int64_t row_end = request_.head_rows().end();
  if (row_begin >= row_end || request_.epoch() != frame.step().epoch()) return;
  const int64_t d_model = request_.manifest().config().d_model();
  const model::Step step = transport::FromProto(frame.step()).value();
  const std::vector<float> activations =
      transport::UnpackActivations(frame, step.token_count(), d_model).value();
  proto::StepResult result;
  result.set_epoch(step.epoch);
  result.set_number(step.number);
  result.set_worker_index(request_.worker_index());
  for (const model::HeadRow& row : FakeAnswer(step, activations, d_model, row_begin, row_end)) {
    *result.add_rows() = transport::ToProto(row);
  }
  proto::StageTiming* stage = result.add_timings();
  stage->set_compute_us(40);
  stage->set_queue_us(3);
  proto::StageTiming* head = result.add_timings();
  head->set_worker_index(request_.worker_index());
  head->set_head(true);
  head->set_compute_us(7);
  Spoil(result);
  SendResults();
}

void FakeWorker::Service::Spoil(proto::StepResult& result) {
  switch (misbehaviour_) {
    case Misbehaviour::kNone:
    case Misbehaviour::kRefusesLoad:
    case Misbehaviour::kNeverReady:
    case Misbehaviour::kHangsInLoad:
      break;
    case Misbehaviour::kSilent:
      return;
    case Misbehaviour::kWithdrawn:
      result.clear_rows();
      result.set_skipped(true);
      waiting_.push_back(result);
      AnswerWithdrawn();
      return;
    case Misbehaviour::kSkips:
      result.clear_rows();
      result.set_skipped(true);
      break;
    case Misbehaviour::kDiesOnStep:
      killed_ = true;
      return;
    case Misbehaviour::kWrongEpoch:
      result.set_epoch(result.epoch() - 1);
      break;
    case Misbehaviour::kWrongWorker:
      result.set_worker_index(result.worker_index() + 1);
      break;
    case Misbehaviour::kWrongSizes:
      result.mutable_rows(0)->mutable_logits()->resize(result.rows(0).logits().size() -
                                                       sizeof(float));
      result.mutable_rows(0)->mutable_ids()->Truncate(std::max(0, result.rows(0).ids_size() - 1));
      break;
    case Misbehaviour::kWrongId:
      result.mutable_rows(0)->set_ids(0, static_cast<int32_t>(request_.head_rows().end()));
      break;
    case Misbehaviour::kWrongNumber:
      result.set_number(result.number() + 1);
      break;
    case Misbehaviour::kTwice:
      results_.push_back(result);
      break;
    case Misbehaviour::kGarbage:
      result.mutable_rows(0)->mutable_logits()->append("x");
      break;
    case Misbehaviour::kFailsStep:
      result.clear_rows();
      result.set_error_code(static_cast<int>(absl::StatusCode::kInternal));
      result.set_error_message("the engine is on fire");
      break;
  }
  results_.push_back(result);
}

FakeWorker::FakeWorker(FakeWorkers* others, std::string id)
    : id_(std::move(id)), service_(std::make_unique<Service>(others)) {
  others->Add(this);
}

FakeWorker::~FakeWorker() { Kill(); }

void FakeWorker::StartInProcess() {
  grpc::ServerBuilder builder;
  transport::ConfigureServer(builder);
  builder.RegisterService(service_.get());
  server_ = builder.BuildAndStart();
  Listen(transport::SocketCredentials::CreateInsecureLoopback());
}

void FakeWorker::Listen(std::shared_ptr<const transport::SocketCredentials> credentials) {
  listener_ = transport::PeerListener::Start(
                  "127.0.0.1", 0, std::move(credentials),
                  [service = service_.get()](const transport::PeerHello& hello,
                                             std::unique_ptr<transport::SecureSocket> socket) {
                    service->Serve(hello, std::move(socket));
                  })
                  .value();
}

std::string FakeWorker::data_address() const {
  return absl::StrCat("127.0.0.1:", listener_->port());
}

void FakeWorker::StartTls(const transport::Identity& identity) {
  grpc::ServerBuilder builder;
  transport::ConfigureServer(builder);
  builder.AddListeningPort("127.0.0.1:0", transport::TlsServerCredentials(identity, true), &port_);
  builder.RegisterService(service_.get());
  server_ = builder.BuildAndStart();
  Listen(transport::SocketCredentials::CreateTls(identity).value());
}

void FakeWorker::Kill() {
  listener_.reset();
  service_->EndConnections();
  // The server object stays, because in-process channels may still point to it.
  if (server_ != nullptr) server_->Shutdown(std::chrono::system_clock::now());
}

void FakeWorker::set_misbehaviour(Misbehaviour misbehaviour) {
  absl::MutexLock lock(&service_->mutex_);
  service_->misbehaviour_ = misbehaviour;
}

proto::LoadRequest FakeWorker::load_request() const {
  absl::MutexLock lock(&service_->mutex_);
  return service_->request_;
}

int FakeWorker::load_count() const {
  absl::MutexLock lock(&service_->mutex_);
  return service_->load_count_;
}

std::vector<std::string> FakeWorker::measured_links() const {
  absl::MutexLock lock(&service_->mutex_);
  return service_->measured_;
}

JoinRequest FakeWorker::AsMember(int64_t memory_bytes) const {
  JoinRequest request;
  request.id = id_;
  request.name = absl::StrCat("name-of-", id_);
  request.address = absl::StrCat("inproc:", id_);
  request.data_address = data_address();
  request.offer.device_path = "fake-1";
  request.offer.memory_bytes = memory_bytes;
  request.offer.weight_bytes_per_second = 1e9;
  return request;
}

void FakeWorkers::Add(FakeWorker* worker) {
  absl::MutexLock lock(&mutex_);
  workers_.push_back(worker);
}

void FakeWorkers::Answer(const proto::StepFrame& frame) {
  absl::MutexLock lock(&mutex_);
  for (FakeWorker* worker : workers_) worker->service_->Answer(frame);
}

}  // namespace renga::cluster

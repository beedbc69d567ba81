#include "coordinator/cluster/results_reader.h"

#include <grpcpp/channel.h>
#include <grpcpp/client_context.h>
#include <grpcpp/support/client_callback.h>

#include <atomic>
#include <optional>
#include <string>
#include <utility>

#include "absl/base/thread_annotations.h"
#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "absl/synchronization/mutex.h"
#include "absl/synchronization/notification.h"
#include "base/status_macros.h"
#include "proto/worker.grpc.pb.h"
#include "transport/grpc_status.h"
#include "transport/wire.h"

namespace renga::cluster {
namespace {

constexpr size_t kMaxErrorBytes = 1000;
// Longer than any step may take; keeps sums of timings in range.
constexpr uint64_t kMaxMicroseconds = uint64_t{1} << 40;
// More than any model has layers; times tokens it stays far inside 64 bits.
constexpr uint32_t kMaxLeftOut = uint32_t{1} << 20;

absl::Status ErrorOf(const proto::StepResult& message) {
  absl::StatusCode code = transport::StatusCodeFromWire(message.error_code());
  return absl::Status(code,
                      absl::Utf8SafeCHexEscape(message.error_message().substr(0, kMaxErrorBytes)));
}

absl::StatusOr<std::vector<StageTiming>> TimingsOf(const proto::StepResult& message,
                                                   size_t worker_count) {
  if (static_cast<size_t>(message.timings_size()) > 2 * worker_count) {
    return absl::InternalError(
        absl::StrCat(message.timings_size(), " timings from ", worker_count, " workers"));
  }
  std::vector<StageTiming> timings;
  for (const proto::StageTiming& timing : message.timings()) {
    if (timing.worker_index() >= worker_count || timing.queue_us() > kMaxMicroseconds ||
        timing.compute_us() > kMaxMicroseconds || timing.exchange_us() > kMaxMicroseconds ||
        timing.left_out() > kMaxLeftOut) {
      return absl::InternalError("a timing out of range");
    }
    timings.push_back({.worker_index = timing.worker_index(),
                       .head = timing.head(),
                       .queue_us = timing.queue_us(),
                       .compute_us = timing.compute_us(),
                       .exchange_us = timing.exchange_us(),
                       .left_out = timing.left_out()});
  }
  return timings;
}

}  // namespace

absl::StatusOr<std::optional<StepAnswer>> ReadAnswer(const proto::StepResult& message,
                                                     const ResultsReader::Options& options) {
  if (message.epoch() != options.epoch) return std::nullopt;
  if (message.worker_index() != options.worker_index) {
    return absl::InternalError(absl::StrCat("it answers as worker ", message.worker_index(),
                                            " of the plan, but is ", options.worker_index));
  }
  StepAnswer answer;
  answer.number = message.number();
  RENGA_ASSIGN_OR_RETURN(answer.timings, TimingsOf(message, options.worker_count));
  if (message.error_code() != 0) {
    answer.status = ErrorOf(message);
    return answer;
  }
  if (message.rows_size() > options.max_outputs) {
    return absl::InternalError(absl::StrCat(message.rows_size(), " rows, but a step has at most ",
                                            options.max_outputs, " outputs"));
  }
  answer.rows.reserve(static_cast<size_t>(message.rows_size()));
  for (const proto::HeadRow& row : message.rows()) {
    RENGA_ASSIGN_OR_RETURN(model::HeadRow head_row, transport::FromProto(row, options.vocabulary));
    answer.rows.push_back(std::move(head_row));
  }
  return answer;
}

class ResultsReader::Reactor : public grpc::ClientReadReactor<proto::StepResult> {
 public:
  explicit Reactor(Options options)
      : options_(std::move(options)), stub_(proto::Worker::NewStub(options_.channel)) {
    request_.set_epoch(options_.epoch);
    stub_->async()->Results(&context_, &request_, this);
    StartRead(&message_);
    StartCall();
  }

  ~Reactor() override {
    closing_ = true;
    context_.TryCancel();
    done_.WaitForNotification();
  }

  void OnReadDone(bool ok) override {
    if (!ok) return;
    absl::StatusOr<std::optional<StepAnswer>> answer = ReadAnswer(message_, options_);
    if (!answer.ok()) {
      options_.on_answer(answer.status());
      context_.TryCancel();
      return;
    }
    if (answer->has_value()) options_.on_answer(**std::move(answer));
    StartRead(&message_);
  }

  void OnDone(const grpc::Status& status) override {
    absl::Status reason = transport::FromGrpcStatus(status, "the stream of results");
    if (reason.ok()) reason = absl::UnavailableError("the worker ended the stream of results");
    if (!closing_) options_.on_broken(reason);
    done_.Notify();
  }

 private:
  const Options options_;
  const std::unique_ptr<proto::Worker::Stub> stub_;
  proto::ResultsRequest request_;
  grpc::ClientContext context_;
  proto::StepResult message_;  // gRPC's between StartRead and OnReadDone
  std::atomic<bool> closing_ = false;
  absl::Notification done_;
};

// What a worker of this process writes to; it may hold on to it for longer than the reader lives.
class ResultsReader::LocalSink : public transport::ResultSink {
 public:
  explicit LocalSink(Options options) : options_(std::move(options)) {}

  void Write(proto::StepResult result) override {
    absl::MutexLock lock(&mutex_);
    if (ended_) return;
    absl::StatusOr<std::optional<StepAnswer>> answer = ReadAnswer(result, options_);
    ended_ = !answer.ok();
    if (ended_) {
      options_.on_answer(answer.status());
    } else if (answer->has_value()) {
      options_.on_answer(**std::move(answer));
    }
  }
  void End(const absl::Status& status) override {
    absl::MutexLock lock(&mutex_);
    if (std::exchange(ended_, true)) return;
    options_.on_broken(
        status.ok() ? absl::UnavailableError("the worker ended the stream of results") : status);
  }
  // Nothing is called any more.
  void Close() {
    absl::MutexLock lock(&mutex_);
    ended_ = true;
  }

 private:
  const Options options_;
  absl::Mutex mutex_;  // also while a callback runs
  bool ended_ ABSL_GUARDED_BY(mutex_) = false;
};

ResultsReader::ResultsReader(Options options) {
  if (options.local == nullptr) {
    reactor_ = std::make_unique<Reactor>(std::move(options));
    return;
  }
  const std::shared_ptr<transport::LocalWorker> local = options.local;
  const uint64_t epoch = options.epoch;
  sink_ = std::make_shared<LocalSink>(std::move(options));
  local->AttachResults(epoch, sink_);
}

ResultsReader::~ResultsReader() {
  if (sink_ != nullptr) sink_->Close();
}

}  // namespace renga::cluster

#include "coordinator/cluster/results_reader.h"

#include <optional>
#include <string>
#include <utility>

#include "absl/base/thread_annotations.h"
#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "absl/synchronization/mutex.h"
#include "base/status_macros.h"
#include "proto/step.pb.h"
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
  answer.skipped = message.skipped();
  if (answer.skipped && message.rows_size() > 0) {
    return absl::InternalError("rows of a step that it says it skipped");
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

// What answers come to; a worker of this process may hold on to it for longer than the reader
// lives.
class ResultsReader::Sink : public transport::ResultSink {
 public:
  explicit Sink(Options options) : options_(std::move(options)) {}

  bool Write(proto::StepResult&& result) override {
    absl::MutexLock lock(&mutex_);
    if (ended_) return false;
    absl::StatusOr<std::optional<StepAnswer>> answer = ReadAnswer(result, options_);
    ended_ = !answer.ok();
    if (ended_) {
      options_.on_answer(answer.status());
    } else if (answer->has_value()) {
      options_.on_answer(**std::move(answer));
    }
    return true;
  }
  void End(const absl::Status& status) override {
    absl::MutexLock lock(&mutex_);
    if (std::exchange(ended_, true)) return;
    options_.on_broken(status.ok() ? absl::UnavailableError("the worker ended its results")
                                   : status);
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

ResultsReader::ResultsReader(Options options) : epoch_(options.epoch) {
  const transport::PeerAddress worker = options.worker;
  transport::Dialer& dialer = *options.dialer;
  sink_ = std::make_shared<Sink>(std::move(options));
  local_ = dialer.FindLocal(worker);
  if (local_ != nullptr) {
    local_->AttachResults(epoch_, sink_);
    return;
  }
  socket_ = std::make_unique<transport::MessageSocket>(transport::MessageSocket::Handlers{
      .on_message =
          [sink = sink_](const std::string& message) {
            proto::StepResult result;
            if (!result.ParseFromString(message)) {
              return absl::InvalidArgumentError("the worker sends what is no result");
            }
            sink->Write(std::move(result));
            return absl::OkStatus();
          },
      .on_end = [sink = sink_](const absl::Status& reason) { sink->End(reason); }});
  socket_->Connect(worker, dialer.socket_credentials(),
                   {.epoch = epoch_, .purpose = transport::PeerPurpose::kResults});
}

ResultsReader::~ResultsReader() { sink_->Close(); }

void ResultsReader::Withdraw(std::span<const uint64_t> numbers) {
  if (local_ != nullptr) return local_->WithdrawSteps(epoch_, numbers);
  proto::StepWithdrawal message;
  message.set_epoch(epoch_);
  message.mutable_numbers()->Add(numbers.begin(), numbers.end());
  socket_->Send(message).IgnoreError();
}

}  // namespace renga::cluster

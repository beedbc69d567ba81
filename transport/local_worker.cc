#include "transport/local_worker.h"

#include <utility>

namespace renga::transport {
namespace {

absl::Status Left() { return absl::UnavailableError("the worker is leaving"); }

}  // namespace

LocalWorker::LocalWorker(Functions functions)
    : run_frame_(std::move(functions.run_frame)),
      withdraw_steps_(std::move(functions.withdraw_steps)),
      attach_results_(std::move(functions.attach_results)) {}

absl::Status LocalWorker::RunFrame(proto::StepFrame frame) {
  absl::MutexLock lock(&frames_mutex_);
  if (run_frame_ == nullptr) return Left();
  run_frame_(std::move(frame));
  return absl::OkStatus();
}

void LocalWorker::AttachResults(uint64_t epoch, std::shared_ptr<ResultSink> sink) {
  absl::MutexLock lock(&results_mutex_);
  if (attach_results_ == nullptr) return sink->End(Left());
  attach_results_(epoch, std::move(sink));
}

void LocalWorker::WithdrawSteps(uint64_t epoch, std::span<const uint64_t> numbers) {
  absl::MutexLock lock(&frames_mutex_);
  if (withdraw_steps_ != nullptr) withdraw_steps_(epoch, numbers);
}

void LocalWorker::Close() {
  {
    absl::MutexLock lock(&frames_mutex_);
    run_frame_ = nullptr;
    withdraw_steps_ = nullptr;
  }
  absl::MutexLock lock(&results_mutex_);
  attach_results_ = nullptr;
}

}  // namespace renga::transport

#include "worker/service/result_outbox.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "base/log.h"

namespace renga::worker {

void ResultOutbox::Begin(uint64_t epoch) {
  std::shared_ptr<transport::ResultSink> old;
  {
    absl::MutexLock lock(&mutex_);
    old = std::move(stream_);
    stream_ = nullptr;
    waiting_.clear();
    epoch_ = epoch;
  }
  if (old != nullptr) old->End(absl::AbortedError("a newer plan has begun"));
}

void ResultOutbox::Push(proto::StepResult result) {
  std::shared_ptr<transport::ResultSink> stream;
  do {
    absl::MutexLock lock(&mutex_);
    if (result.epoch() != epoch_) return;
    if (stream_ == stream) stream_ = nullptr;  // it has ended
    if (stream_ == nullptr) {
      if (waiting_.size() >= kMaxWaiting) {
        RENGA_LOG(WARNING) << "nobody takes the results of step " << result.number();
        return;
      }
      waiting_.push_back(std::move(result));
      return;
    }
    stream = stream_;
    // Without the lock: only the engine's thread pushes, so results keep their order.
  } while (!stream->Write(std::move(result)));
}

void ResultOutbox::Attach(uint64_t epoch, std::shared_ptr<transport::ResultSink> stream) {
  absl::Status refusal;
  std::shared_ptr<transport::ResultSink> old;
  {
    absl::MutexLock lock(&mutex_);
    if (epoch < epoch_) {
      refusal = absl::AbortedError(absl::StrCat("epoch ", epoch, " is over, now is ", epoch_));
    } else if (epoch > epoch_ || epoch == 0) {
      refusal = absl::FailedPreconditionError(absl::StrCat("epoch ", epoch, " is not loaded here"));
    } else {
      // Under the lock: a Push meanwhile must come after what waited.
      while (!waiting_.empty() && stream->Write(std::move(waiting_.front()))) waiting_.pop_front();
      old = std::exchange(stream_, stream);
    }
  }
  if (!refusal.ok()) stream->End(refusal);
  if (old != nullptr) old->End(absl::AbortedError("another stream of results was opened"));
}

void ResultOutbox::Close(const absl::Status& status) {
  std::shared_ptr<transport::ResultSink> old;
  {
    absl::MutexLock lock(&mutex_);
    old = std::move(stream_);
    stream_ = nullptr;
    waiting_.clear();
    epoch_ = 0;
  }
  if (old != nullptr) old->End(status);
}

}  // namespace renga::worker

#include "transport/edge_sender.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"

namespace renga::transport {
namespace {

// A receiver that grants more than this is confused; the number only keeps the sum in range.
constexpr int64_t kMaxCredits = 1 << 20;

}  // namespace

EdgeSender::EdgeSender(Dialer& dialer, const PeerAddress& worker,
                       std::function<void(const absl::Status&)> on_broken)
    : on_broken_(std::move(on_broken)), local_(dialer.FindLocal(worker)) {
  if (local_ != nullptr) return;
  socket_ = std::make_unique<MessageSocket>(MessageSocket::Handlers{
      .on_message = [this](const std::string& message) { return TakeCredit(message); },
      .on_end = [this](const absl::Status& reason) { Broke(reason); }});
  socket_->Connect(worker, dialer.socket_credentials(), {.purpose = PeerPurpose::kSteps});
}

EdgeSender::~EdgeSender() = default;

absl::Status EdgeSender::Send(proto::StepFrame frame) {
  if (local_ != nullptr) return local_->RunFrame(std::move(frame));
  absl::MutexLock lock(&mutex_);
  RENGA_RETURN_IF_ERROR(broken_);
  if (credits_ > 0) {
    --credits_;
    return socket_->Send(frame);
  }
  if (queue_.size() >= kMaxQueuedFrames) {
    return absl::ResourceExhaustedError(
        absl::StrCat("more than ", kMaxQueuedFrames, " steps wait for one worker"));
  }
  queue_.push_back(std::move(frame));
  return absl::OkStatus();
}

absl::Status EdgeSender::TakeCredit(const std::string& message) {
  proto::StepCredit credit;
  if (!credit.ParseFromString(message)) {
    return absl::InvalidArgumentError("the worker sends what is no credit");
  }
  absl::MutexLock lock(&mutex_);
  credits_ = std::min(credits_ + credit.frames(), kMaxCredits);
  for (; credits_ > 0 && !queue_.empty(); --credits_) {
    RENGA_RETURN_IF_ERROR(socket_->Send(queue_.front()));
    queue_.pop_front();
  }
  return absl::OkStatus();
}

void EdgeSender::Broke(const absl::Status& reason) {
  {
    absl::MutexLock lock(&mutex_);
    broken_ = reason;
  }
  if (on_broken_) on_broken_(reason);
}

}  // namespace renga::transport

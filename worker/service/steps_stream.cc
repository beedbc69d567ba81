#include "worker/service/steps_stream.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "transport/grpc_status.h"

namespace renga::worker {

std::shared_ptr<StepsStream> StepsStream::Create(ShardHost* host) {
  std::shared_ptr<StepsStream> stream(new StepsStream(host));
  stream->self_ = stream;
  return stream;
}

void StepsStream::Start(uint32_t window) {
  if (window > 0) GrantWindow(window);
  StartRead(&frame_);
}

void StepsStream::GrantWindow(uint32_t window) {
  absl::MutexLock lock(&mutex_);
  if (window_ > 0) return;
  window_ = window;
  to_grant_ = window;
  WriteCredits();
}

void StepsStream::OnReadDone(bool ok) {
  {
    absl::MutexLock lock(&mutex_);
    if (!ok) {
      EndLocked(absl::OkStatus());
      return;
    }
    if (ended_) return;
    if (++outstanding_ > window_) {
      EndLocked(absl::ResourceExhaustedError(
          absl::StrCat("more frames than the window of ", window_, " allows")));
      return;
    }
    // What waits here is bounded by the window's frames only if each of them is.
    const size_t bytes =
        frame_.activations().size() + sizeof(int32_t) * static_cast<size_t>(frame_.tokens_size());
    if (bytes > host_->max_frame_bytes()) {
      EndLocked(absl::InvalidArgumentError(absl::StrCat(
          "a frame of ", bytes, " bytes, but the plan's largest has ", host_->max_frame_bytes())));
      return;
    }
  }
  host_->RunFrame(std::move(frame_), [stream = shared_from_this()] { stream->FrameDone(); });
  frame_ = proto::StepFrame();
  absl::MutexLock lock(&mutex_);
  if (!ended_) StartRead(&frame_);
}

void StepsStream::FrameDone() {
  absl::MutexLock lock(&mutex_);
  --outstanding_;
  ++to_grant_;
  WriteCredits();
}

void StepsStream::WriteCredits() {
  if (writing_ || ended_ || to_grant_ == 0) return;
  credit_.set_frames(std::exchange(to_grant_, 0));
  writing_ = true;
  StartWrite(&credit_);
}

void StepsStream::OnWriteDone(bool ok) {
  absl::MutexLock lock(&mutex_);
  writing_ = false;
  if (ok) WriteCredits();
}

void StepsStream::OnCancel() { End(absl::CancelledError("the sender is gone")); }

void StepsStream::End(const absl::Status& status) {
  absl::MutexLock lock(&mutex_);
  EndLocked(status);
}

void StepsStream::EndLocked(const absl::Status& status) {
  if (ended_) return;
  ended_ = true;
  Finish(transport::ToGrpcStatus(status));
}

void StepsStream::OnDone() {
  // Perhaps the last reference: nothing may touch the object after this.
  std::shared_ptr<StepsStream> self = std::move(self_);
}

}  // namespace renga::worker

#include "worker/service/stage_group.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "base/log.h"
#include "base/status_macros.h"

namespace renga::worker {

absl::StatusOr<base::Communicator*> StageGroup::Joined() {
  if (options_.backend != nullptr && !std::exchange(has_tried_, true)) {
    RENGA_RETURN_IF_ERROR(Join());
  }
  return devices_ != nullptr ? devices_.get() : options_.connections.get();
}

absl::Status StageGroup::Join() {
  auto devices = options_.backend->JoinDeviceGroup(*options_.connections);
  const bool fall_back = absl::IsFailedPrecondition(devices.status());
  if (!devices.ok() && !fall_back) return devices.status();
  const std::string line =
      fall_back
          ? absl::StrCat("the group adds up over sockets: ", devices.status().message())
          : absl::StrCat("the group of ", options_.connections->size(), " cards adds up over NCCL");
  RENGA_LOG(INFO) << line;
  if (options_.on_event) options_.on_event(line);
  if (fall_back) return absl::OkStatus();
  const absl::MutexLock lock(&mutex_);
  devices_ = *std::move(devices);
  if (cancelled_) devices_->Cancel();
  return absl::OkStatus();
}

void StageGroup::Cancel() {
  const absl::MutexLock lock(&mutex_);
  cancelled_ = true;
  options_.connections->Cancel();
  if (devices_ != nullptr) devices_->Cancel();
}

}  // namespace renga::worker

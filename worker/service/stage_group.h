// What the members of a stage add up over: their connections, and where the plan says so and all of
// them can, a group of their devices.
#ifndef RENGA_WORKER_SERVICE_STAGE_GROUP_H_
#define RENGA_WORKER_SERVICE_STAGE_GROUP_H_

#include <functional>
#include <memory>
#include <string>

#include "absl/base/thread_annotations.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "base/communicator.h"
#include "worker/kernels/backend.h"

namespace renga::worker {

// Cancel on any thread, the rest on the engine's.
class StageGroup {
 public:
  struct Options {
    std::unique_ptr<base::Communicator> connections;
    // Where devices are to add up: this member's, which outlives the object. Null: connections do.
    kernels::Backend* backend = nullptr;
    // A line for people; may be empty.
    std::function<void(const std::string& line)> on_event;
  };
  explicit StageGroup(Options options) : options_(std::move(options)) {}

  // The first call, in the first step, waits for the other members' devices: by then all have
  // loaded. If one of them cannot join, all go on over their connections, and a line says why.
  // Errors are the group's: its members no longer agree.
  absl::StatusOr<base::Communicator*> Joined() ABSL_LOCKS_EXCLUDED(mutex_);

  void Cancel() ABSL_LOCKS_EXCLUDED(mutex_);

 private:
  absl::Status Join() ABSL_LOCKS_EXCLUDED(mutex_);

  const Options options_;
  bool has_tried_ = false;
  absl::Mutex mutex_;
  bool cancelled_ ABSL_GUARDED_BY(mutex_) = false;
  // Over options_.connections; null: none. Written by the engine's thread alone.
  std::unique_ptr<base::Communicator> devices_;
};

}  // namespace renga::worker

#endif  // RENGA_WORKER_SERVICE_STAGE_GROUP_H_

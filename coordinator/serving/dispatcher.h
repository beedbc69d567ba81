// Shares requests out among the replicas of the model: one conductor for each, all of them on the
// scheduler's thread. Internal to serving/.
#ifndef RENGA_COORDINATOR_SERVING_DISPATCHER_H_
#define RENGA_COORDINATOR_SERVING_DISPATCHER_H_

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <vector>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "coordinator/serving/conductor.h"
#include "coordinator/serving/draft_model.h"
#include "coordinator/serving/inbox.h"
#include "coordinator/serving/scheduler.h"
#include "coordinator/serving/sequence.h"
#include "coordinator/serving/stats.h"

namespace renga::serving {

// Not thread-safe, as Conductor.
class Dispatcher {
 public:
  Dispatcher(const SchedulerOptions& options, std::weak_ptr<Inbox> inbox);

  void Handle(Event event);
  // Every conductor's turn.
  void Turn();
  absl::Time NextDeadline() const;
  void EndAll(const absl::Status& status);
  ServingStats Stats() const;

 private:
  // Gives the request to the replica with the fewest requests of those that can take it: the first
  // of them, whose tokens take the least time, where several have as few.
  void Start(std::unique_ptr<Sequence> sequence);
  // Requests of pipelines that broke before they had begun.
  void StartAgain();
  int64_t request_count() const;

  const SchedulerOptions& options_;
  std::optional<DraftModel> draft_;                     // outlives the conductors' sequences
  std::vector<std::unique_ptr<Conductor>> conductors_;  // by replica
  size_t newest_step_ = 0;                              // the replica that answered last
  uint64_t prompt_tokens_ = 0;
};

}  // namespace renga::serving

#endif  // RENGA_COORDINATOR_SERVING_DISPATCHER_H_

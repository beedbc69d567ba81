// What other threads leave for the scheduler's thread: new requests, cancellations, answers of the
// pipeline. Bounded by the requests and steps that exist. Internal to serving/.
#ifndef RENGA_COORDINATOR_SERVING_INBOX_H_
#define RENGA_COORDINATOR_SERVING_INBOX_H_

#include <cstddef>
#include <cstdint>
#include <memory>
#include <variant>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "coordinator/cluster/pipeline.h"
#include "coordinator/serving/sequence.h"
#include "coordinator/serving/stats.h"

namespace renga::serving {

struct CancelEvent {
  uint64_t request_id = 0;
};

struct StepEvent {
  size_t replica = 0;
  uint64_t ticket = 0;  // of the step, over all pipelines of the replica
  absl::StatusOr<cluster::StepOutcome> outcome;
};

// What the first head block says of a step that others have not answered yet.
struct EarlyEvent {
  size_t replica = 0;
  uint64_t ticket = 0;
  std::vector<model::HeadRow> rows;
};

using Event = std::variant<std::unique_ptr<Sequence>, CancelEvent, StepEvent, EarlyEvent>;

// Thread-safe. Held by shared_ptr: a pipeline may answer after the scheduler is gone.
struct Inbox {
  // False when the scheduler has stopped; the event is then untouched.
  bool Put(Event&& event) ABSL_LOCKS_EXCLUDED(mutex);
  // Waits for events, Stop or the deadline; nothing of what was left is left behind.
  std::vector<Event> Take(absl::Time deadline, bool& stopped) ABSL_LOCKS_EXCLUDED(mutex);
  void Stop() ABSL_LOCKS_EXCLUDED(mutex);

  absl::Mutex mutex;
  std::vector<Event> events ABSL_GUARDED_BY(mutex);
  bool stopping ABSL_GUARDED_BY(mutex) = false;
  uint64_t last_request_id ABSL_GUARDED_BY(mutex) = 0;
  ServingStats stats ABSL_GUARDED_BY(mutex);  // as of the scheduler's last turn
};

}  // namespace renga::serving

#endif  // RENGA_COORDINATOR_SERVING_INBOX_H_

// The steps of one epoch that are on their way: their numbers, who has answered, and when an
// answer is overdue. Pure bookkeeping; pipeline_impl brings it questions, answers and threads.
#ifndef RENGA_COORDINATOR_CLUSTER_STEP_TRACKER_H_
#define RENGA_COORDINATOR_CLUSTER_STEP_TRACKER_H_

#include <cstdint>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "coordinator/cluster/head_merge.h"
#include "coordinator/cluster/pipeline.h"
#include "model/block_rows.h"
#include "model/step.h"

namespace renga::cluster {

// What a worker said about a step: its head block's rows, or why it could not do the step.
struct StepAnswer {
  uint64_t number = 0;
  absl::Status status;
  bool skipped = false;  // a withdrawn step, not computed: no rows
  std::vector<model::HeadRow> rows;
  std::vector<StageTiming> timings;
};

// A step that needs nothing more. With an OK status `blocks` are all head blocks' answers in
// ascending order of rows, ready for MergeHeadBlocks unless some of them skipped the step.
struct FinishedStep {
  model::Step step;
  Pipeline::Callback done;
  absl::Status status;
  bool skipped = false;
  std::vector<HeadBlock> blocks;
  std::vector<StageTiming> timings;  // each (worker, head) once
  absl::Duration round_trip;
};

// What one block says of a step that others have not answered yet (BlockAlone).
struct EarlyAnswer {
  Pipeline::EarlyCallback tell;
  std::vector<model::HeadRow> rows;
};

// Not thread-safe.
class StepTracker {
 public:
  // Vocabulary rows each worker of the plan holds, by worker index; empty for the others. `near`:
  // the worker whose block is heard before the others have answered.
  explicit StepTracker(std::vector<model::BlockRows> head_rows,
                       std::optional<uint32_t> near = std::nullopt);

  size_t pending() const { return pending_.size(); }
  // Takes a step in; sets and returns its number. `now` is on a clock that never goes back.
  uint64_t Begin(model::Step& step, Pipeline::Callback done, absl::Duration now,
                 Pipeline::EarlyCallback early = nullptr);

  // From now on these steps may be skipped. Returns those of them that are on their way.
  std::vector<uint64_t> Withdraw(std::span<const uint64_t> numbers);

  // The step this answer finishes, if it does. An error is a worker that breaks the rules (a
  // number never asked, an answer without a head, twice, out of order, of wrong sizes, or a step
  // skipped that nobody withdrew): nothing it says can be trusted. Answers to steps that failed
  // already are passed over.
  absl::StatusOr<std::optional<FinishedStep>> Answer(uint32_t worker, StepAnswer answer,
                                                     absl::Duration now);

  // What has been heard early since the last call.
  std::vector<EarlyAnswer> TakeEarly() { return std::exchange(early_, {}); }

  // Ends every step that is on its way with `status`.
  std::vector<FinishedStep> FailAll(const absl::Status& status, absl::Duration now);

  // What a worker told of itself: the step that it is at (0: none), and how much of the model has
  // come to it so far.
  struct Progress {
    uint64_t step = 0;
    int64_t weight_bytes = 0;
  };
  void Heard(uint32_t worker, const Progress& progress, absl::Duration now);

  // Since when nothing is known to go on with the oldest pending step. A worker that is at it and
  // gets weights goes on; what came for a step before it held up this one too.
  struct Standstill {
    absl::Duration since;       // InfiniteDuration when no step is pending
    bool weights_came = false;  // the last ones then; else the step began
  };
  Standstill standstill() const;
  // Workers with a head that have not answered the oldest pending step.
  std::vector<uint32_t> SilentOnOldest() const;

 private:
  struct Pending {
    model::Step step;  // without its commands
    Pipeline::Callback done;
    Pipeline::EarlyCallback early;
    absl::Duration begin;
    size_t answered = 0;
    bool withdrawn = false;
    bool skipped = false;                                             // by some head
    std::vector<std::optional<std::vector<model::HeadRow>>> outputs;  // by worker index
    std::vector<StageTiming> timings;
  };
  FinishedStep Finish(std::map<uint64_t, Pending>::iterator it, absl::Status status,
                      absl::Duration now);
  absl::StatusOr<std::optional<FinishedStep>> AcceptHead(uint32_t worker, StepAnswer& answer,
                                                         absl::Duration now);

  const std::vector<model::BlockRows> head_rows_;
  const std::optional<uint32_t> near_;
  int64_t vocabulary_ = 0;
  std::vector<uint32_t> heads_;          // worker indices, ascending by rows
  std::vector<uint64_t> last_answered_;  // by worker index
  std::vector<int64_t> weight_bytes_;    // by worker index, as heard
  uint64_t last_number_ = 0;
  // When it was heard that weights had come for the oldest step of that time.
  absl::Duration fed_at_ = -absl::InfiniteDuration();
  std::map<uint64_t, Pending> pending_;
  std::vector<EarlyAnswer> early_;
};

}  // namespace renga::cluster

#endif  // RENGA_COORDINATOR_CLUSTER_STEP_TRACKER_H_

// One replica of the model on the scheduler's thread: its sequences, its present pipeline and the
// steps in flight on it.
// Internal to serving/.
#ifndef RENGA_COORDINATOR_SERVING_CONDUCTOR_H_
#define RENGA_COORDINATOR_SERVING_CONDUCTOR_H_

#include <cstddef>
#include <cstdint>
#include <deque>
#include <memory>
#include <optional>
#include <span>
#include <utility>
#include <vector>

#include "absl/container/btree_map.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "coordinator/cluster/pipeline.h"
#include "coordinator/serving/batcher.h"
#include "coordinator/serving/draft_model.h"
#include "coordinator/serving/inbox.h"
#include "coordinator/serving/scheduler.h"
#include "coordinator/serving/sequence.h"
#include "coordinator/serving/stats.h"

namespace renga::serving {

// Not thread-safe: all of it happens on one thread. Callbacks of requests run inside its methods.
class Conductor {
 public:
  // Works for options.replicas[replica]. `draft` may be null; what is given outlives the conductor.
  Conductor(const SchedulerOptions& options, size_t replica, DraftModel* draft,
            std::weak_ptr<Inbox> inbox)
      : options_(options), replica_(replica), draft_(draft), inbox_(std::move(inbox)) {}

  // Gets hold of the present pipeline. OK: requests can be started, if only to wait for a plan that
  // takes over.
  absl::Status Prepare();
  // How much there is to do, for comparison with others.
  struct WorkLoad {
    bool waits_for_plan = false;
    int64_t requests = 0;
    int64_t prompt_tokens = 0;  // not computed yet
    friend auto operator<=>(const WorkLoad&, const WorkLoad&) = default;
  };
  WorkLoad load() const;
  // After Prepare.
  void Start(std::unique_ptr<Sequence> sequence);
  // Ends it at once.
  void Refuse(std::unique_ptr<Sequence> sequence, const absl::Status& status);
  // If it is one of its requests.
  void Cancel(uint64_t request_id);
  void StepDone(StepEvent event);
  // Keeps what the step's outputs seem to say as guesses.
  void GuessFrom(const EarlyEvent& event);
  // Requests that waited for a pipeline that broke: they can begin anywhere.
  std::vector<std::unique_ptr<Sequence>> TakeHomeless() { return std::exchange(homeless_, {}); }

  // Ends requests whose time is over, then sends as many steps as may be in flight.
  void Turn();
  // When Turn has something to do even if nothing is heard until then.
  absl::Time NextDeadline() const;
  void EndAll(const absl::Status& status);
  ServingStats Stats() const;

 private:
  struct InFlight {
    uint64_t ticket = 0;
    uint64_t number = 0;  // of the step, as Pipeline::Submit returned it
    bool withdrawn = false;
    std::vector<model::StepSlot> slots;
    std::vector<uint64_t> forks;  // per slot, as in PlannedStep
    int64_t tokens = 0;
    bool decodes = false;
    // Nothing but answers, and sent while no prompt was under way: its time is that of its rows.
    bool undisturbed = false;
    bool prompts = false;
    std::optional<absl::StatusOr<cluster::StepOutcome>> outcome;
  };

  std::unique_ptr<Drafter> NewDrafter();

  absl::Status EnsurePipeline();
  void UsePipeline(std::shared_ptr<cluster::Pipeline> pipeline);
  // The present pipeline can't be used any longer: ends the requests that are on it and makes the
  // others homeless, or keeps all of them for the plan that takes over.
  void Break(const absl::Status& status);
  // Requests that have no pipeline begin (again) on the present one, from their journals; without
  // one they end with `status`.
  void Enqueue(const std::vector<Sequence*>& sequences, const absl::Status& status);
  // Goes on with requests that wait for a plan that takes over, once it is there.
  void LookForPlan();

  void SendSteps();
  void SendStep(PlannedStep planned);
  // Whether some row of the step will count when it comes.
  bool IsLive(const InFlight& flight) const;
  // Steps that are not: the workers need not compute them.
  void WithdrawVoidSteps();
  int64_t PrefillChunk() const;

  void GuessNext(Sequence& sequence, const model::StepSlot& slot, const model::HeadRow& row) const;
  void Deliver(const InFlight& flight, const cluster::StepOutcome& outcome);
  // A row for a token of an answer and, while they are what was guessed, those after it.
  // `left_out`: feed-forwards that their step went without.
  void DeliverTokens(Sequence& sequence, std::span<const model::HeadRow> rows, int64_t left_out);
  // False: the sequence ended, and is gone.
  bool DeliverToken(Sequence& sequence, const model::HeadRow& row);
  void DeliverScores(Sequence& sequence, const model::StepSlot& slot, const model::HeadRow* rows);
  void Measure(const InFlight& flight, const cluster::StepOutcome& outcome);

  void Finish(Sequence& sequence, absl::StatusOr<FinishReason> reason);

  // Whether the sequence's next token comes from approximated logits; `left_out`: by the step that
  // computed them.
  bool IsApproximated(const Sequence& sequence, int64_t left_out) const;
  int64_t vocab_size() const { return pipeline_->model().config.vocab_size; }
  int64_t context_tokens() const;
  int64_t max_in_flight() const;

  const SchedulerOptions& options_;
  const size_t replica_;
  DraftModel* const draft_;
  const std::weak_ptr<Inbox> inbox_;

  std::shared_ptr<cluster::Pipeline> pipeline_;
  // A pipeline that calls itself healthy after a step failed on it: its stages may disagree.
  std::weak_ptr<cluster::Pipeline> distrusted_;
  std::optional<Batcher> batcher_;  // as long as pipeline_
  std::deque<InFlight> in_flight_;  // in the order they were sent
  uint64_t last_ticket_ = 0;
  absl::Time last_turn_ = absl::InfinitePast();
  // No sequence is on a pipeline: all of them wait until then for the plan that takes over.
  std::optional<absl::Time> wait_for_plan_;
  double prefill_us_per_token_ = 0;  // of the slowest stage, smoothed; 0: unknown

  absl::btree_map<uint64_t, std::unique_ptr<Sequence>> sequences_;  // by request id: by age
  std::vector<std::unique_ptr<Sequence>> homeless_;
  ServingStats stats_;  // the totals
};

}  // namespace renga::serving

#endif  // RENGA_COORDINATOR_SERVING_CONDUCTOR_H_

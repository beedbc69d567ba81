// A loaded plan, ready to run steps: what serving sees of the cluster.
#ifndef RENGA_COORDINATOR_CLUSTER_PIPELINE_H_
#define RENGA_COORDINATOR_CLUSTER_PIPELINE_H_

#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "model/architecture.h"
#include "model/shard_spec.h"
#include "model/step.h"
#include "model/tokenizer.h"

namespace renga::cluster {

// Where a step's time went on one worker.
struct StageTiming {
  uint32_t worker_index = 0;
  bool head = false;
  uint64_t queue_us = 0;
  uint64_t compute_us = 0;
  uint64_t exchange_us = 0;  // of compute_us: waiting for the other members of the group
  // Feed-forwards of its layers that the step went without, as they came after their deadline.
  uint32_t left_out = 0;
};

// A step's answer: one merged row per output, in slot order. Exact: with top_k the best k of the
// whole vocabulary, with top_k == 0 every logit (ids empty, logits[id]).
struct StepOutcome {
  std::vector<model::HeadRow> rows;
  // The step was withdrawn, and some worker left out its part: there are no rows.
  bool skipped = false;
  std::vector<StageTiming> timings;
  uint64_t round_trip_us = 0;
  // Of it: stages one after the other, members of a stage side by side, then the slowest head
  // block.
  double compute_us = 0;
};

// One epoch. Thread-safe. Once a worker of the plan is lost every step, present and future, fails
// with kUnavailable naming the worker, and the pipeline is never healthy again. With kAborted when
// the plan was given up with all its workers there: another one takes over soon, and can replay.
class Pipeline {
 public:
  virtual ~Pipeline() = default;

  virtual uint64_t epoch() const = 0;
  virtual const model::Model& model() const = 0;
  virtual const model::RuntimeLimits& limits() const = 0;
  virtual int64_t stage_count() const = 0;
  // OK, or why it broke.
  virtual absl::Status status() const = 0;

  using Callback = std::function<void(absl::StatusOr<StepOutcome>)>;
  using EarlyCallback = std::function<void(std::vector<model::HeadRow>)>;
  // Sends the step; epoch and number are filled in, so steps run in the order of the calls.
  // `tokens` are those of all its slots, step.token_count() of them. Never blocks: a caller keeps
  // no more than kEdgeWindowFrames steps in flight. `done` runs once, on a thread of the pipeline,
  // and must not block; it may call Submit.
  //
  // `early`, which may be null, runs at most once and before `done`, on the same thread, when the
  // block with the first rows has answered and others have not: with a row for each output as if
  // there were no other rows of the vocabulary, or an empty one where the block has too few
  // (BlockAlone in head_merge.h). What is chosen from it is a guess.
  //
  // Returns the step's number, by which it can be withdrawn; 0 when it was refused.
  virtual uint64_t Submit(model::Step step, std::vector<model::TokenId> tokens, Callback done,
                          EarlyCallback early) = 0;

  // Nobody wants the rows of these steps any more: workers that hear of it in time do not compute
  // them. Their commands count as ever and `done` runs in turn, but what their positions hold is
  // undefined: no step whose rows are wanted may look at these before a command has taken them
  // back. Never blocks. Steps that are not on their way are passed over.
  virtual void Withdraw(std::span<const uint64_t> numbers) = 0;
};

// Where serving gets the present pipeline from.
class PipelineSource {
 public:
  virtual ~PipelineSource() = default;
  // kUnavailable with a sentence for users ("waiting for workers: ...") when there is none.
  virtual absl::StatusOr<std::shared_ptr<Pipeline>> CurrentPipeline() = 0;
};

}  // namespace renga::cluster

#endif  // RENGA_COORDINATOR_CLUSTER_PIPELINE_H_

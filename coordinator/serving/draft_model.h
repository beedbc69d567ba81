// A small model that computes guesses for a large one: both read the same tokens, and what the
// small one finds likeliest is often what the large one says (speculative decoding, Leviathan et
// al. 2023, arXiv 2211.17192). It runs through the same engine, on a pipeline of its own.
//
// It is computed while the large model's stages wait, so it should be on the coordinator's machine
// and small: a guess must take a fraction of a step. Long texts are computed beside the large
// model's work, without anybody waiting for it; guesses begin when it has caught up.
#ifndef RENGA_COORDINATOR_SERVING_DRAFT_MODEL_H_
#define RENGA_COORDINATOR_SERVING_DRAFT_MODEL_H_

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/notification.h"
#include "coordinator/cluster/pipeline.h"
#include "coordinator/serving/drafter.h"
#include "coordinator/serving/kv_blocks.h"
#include "coordinator/serving/scheduler.h"

namespace renga::serving {

// A step that is under way; may outlive the model.
struct DraftStep {
  absl::Notification done;
  absl::StatusOr<cluster::StepOutcome> outcome = absl::UnknownError("");
};

// What the sequences' drafters share. Used by the scheduler's thread alone. A pipeline that fails
// is not used again: answers go on without guesses.
class DraftModel {
 public:
  // `source` outlives the model.
  explicit DraftModel(cluster::PipelineSource* source) : source_(source) {}

  // Gets hold of the pipeline. False: it can't be used now.
  bool Ready();
  int64_t max_step_tokens() const { return pipeline_->limits().max_step_tokens; }

  // A new sequence, without positions.
  model::SequenceId NewSequence() { return ++last_sequence_; }
  // The sequence gets blocks for so many positions; false when there are none left.
  bool Grow(model::SequenceId sequence, int64_t positions);
  // The sequence keeps its first `positions`.
  bool Truncate(model::SequenceId sequence, int64_t positions);
  void Free(model::SequenceId sequence);

  // Computes `tokens` from `position` on; the last one is answered when `answer`. Null when too
  // many steps are under way.
  std::shared_ptr<DraftStep> Begin(model::SequenceId sequence, int64_t position,
                                   std::span<const TokenId> tokens, bool answer);
  // Waits for it; errors end the use of the model.
  absl::StatusOr<cluster::StepOutcome> Wait(DraftStep& step);

  // What a step with an answer took, smoothed; 0: none yet.
  double step_us() const { return step_us_; }
  void Measure(double us);

 private:
  void GiveUp(const absl::Status& status);

  cluster::PipelineSource* const source_;
  std::shared_ptr<cluster::Pipeline> pipeline_;
  bool broken_ = false;
  std::optional<KvBlocks> blocks_;          // as long as pipeline_
  std::vector<model::KvCommand> commands_;  // for the next step
  std::vector<std::shared_ptr<DraftStep>> under_way_;
  model::SequenceId last_sequence_ = 0;
  double step_us_ = 0;
};

// A sequence's guesses: the model's greedy continuation. All of them are computed.
class ModelDrafter : public Drafter {
 public:
  explicit ModelDrafter(DraftModel* model) : model_(model), sequence_(model->NewSequence()) {}
  ~ModelDrafter() override { model_->Free(sequence_); }
  ModelDrafter(const ModelDrafter&) = delete;
  ModelDrafter& operator=(const ModelDrafter&) = delete;

  std::vector<Guess> Propose(std::span<const TokenId> tokens, std::span<const Guess> pending,
                             const GuessLimits& limits) override;
  const EvidencePriors& priors() const override;
  double guess_us() const override { return model_->step_us(); }

  // The evidence class of a token that the model gives this probability.
  static int EvidenceOf(double probability);

 private:
  // Brings the model's state to all but the last few tokens of `text`, a chunk with each call and
  // without waiting. False: not there yet.
  bool CatchUp(std::span<const TokenId> text);
  // Forgets what is not a beginning of `text`.
  bool Rewind(std::span<const TokenId> text);
  // The model's next token, once it has computed the rest of `text`.
  std::optional<Guess> Next(std::span<const TokenId> text);

  DraftModel* const model_;
  const model::SequenceId sequence_;
  std::vector<TokenId> computed_;  // what the model's state is of, or will be
  std::shared_ptr<DraftStep> catching_up_;
};

}  // namespace renga::serving

#endif  // RENGA_COORDINATOR_SERVING_DRAFT_MODEL_H_

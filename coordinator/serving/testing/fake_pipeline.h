// A pipeline for tests: a toy model behind a stage that is strict about every command and slot.
//
// The toy's KV "state" of a token is the token, stored in a block; its
// logits are a hash of all tokens that the sequence's block table leads to. So a wrong block, a
// missing or doubled token or a wrong position changes every logit, and anything that a stage
// would refuse is an error here too.
#ifndef RENGA_COORDINATOR_SERVING_TESTING_FAKE_PIPELINE_H_
#define RENGA_COORDINATOR_SERVING_TESTING_FAKE_PIPELINE_H_

#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <set>
#include <span>
#include <thread>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "coordinator/cluster/pipeline.h"
#include "coordinator/serving/scheduler.h"
#include "coordinator/serving/step_costs.h"

namespace renga::serving {

inline constexpr int64_t kToyWidth = 4;  // d_model

// Logits after `tokens`.
using ToyModel = std::function<std::vector<float>(std::span<const TokenId>, int64_t vocab_size)>;
// The toy model's.
std::vector<float> ToyLogits(std::span<const TokenId> tokens, int64_t vocab_size);
// The toy model as a copier: the token `period` positions before is favoured by `strength`, but at
// every `novelty`th position.
ToyModel CopyingModel(int64_t period, int64_t novelty, float strength = 20);
// Logits as a head would answer them.
model::HeadRow ToyRow(std::vector<float> logits, int64_t top_k,
                      const model::TokenMask* allowed = nullptr);

struct FakePipelineOptions {
  uint64_t epoch = 1;
  int64_t vocab_size = 64;
  int64_t stage_count = 1;
  int64_t kv_blocks = 64;
  int64_t max_step_tokens = 256;
  int64_t max_step_outputs = 64;
  absl::Duration step_time = absl::ZeroDuration();
  uint32_t left_out = 0;  // feed-forwards that every step went without, as it says
  model::Approximation approximation = {};  // what the plan says of it; the toy computes as ever
  ToyModel toy = ToyLogits;
  // The head's first block has the rows below it, and answers this much before the others. 0: there
  // is one block.
  int64_t near_rows = 0;
  absl::Duration far_time = absl::ZeroDuration();
  // What a step of so many rows is said to have taken.
  std::function<StepCost(int64_t rows)> cost = [](int64_t) { return StepCost{1000, 900, 900}; };
};

// One stage's memory and rules.
class ToyStage {
 public:
  explicit ToyStage(const FakePipelineOptions& options);
  // kInvalidArgument: a real stage would have refused the step.
  absl::StatusOr<std::vector<model::HeadRow>> Run(const model::Step& step,
                                                  std::span<const TokenId> tokens);
  // As Run, but what the positions hold is wrong, and there is no answer.
  absl::Status Skip(const model::Step& step, std::span<const TokenId> tokens);
  // Blocks that are in some sequence's table.
  int64_t used_blocks() const;
  int64_t sequences() const { return static_cast<int64_t>(sequences_.size()); }

 private:
  struct State {
    std::vector<int32_t> blocks;
    int64_t positions = 0;
  };
  absl::Status Apply(const model::KvCommand& command);
  absl::Status Append(State& state, const std::vector<int32_t>& blocks);
  void Release(int32_t block) { --users_[block]; }

  const FakePipelineOptions options_;
  std::map<model::SequenceId, State> sequences_;
  std::vector<int> users_;                    // per block
  std::vector<std::vector<TokenId>> memory_;  // per block, kKvBlockTokens
};

class FakePipeline : public cluster::Pipeline {
 public:
  explicit FakePipeline(const FakePipelineOptions& options);
  ~FakePipeline() override;

  uint64_t epoch() const override { return options_.epoch; }
  const model::Model& model() const override { return model_; }
  const model::RuntimeLimits& limits() const override { return limits_; }
  int64_t stage_count() const override { return options_.stage_count; }
  absl::Status status() const override;
  uint64_t Submit(model::Step step, std::vector<TokenId> tokens, Callback done,
                  EarlyCallback early) override;
  // What is not computed yet is skipped.
  void Withdraw(std::span<const uint64_t> numbers) override;

  // Every step, also those in flight, fails with `status` from now on.
  void Break(absl::Status status);
  // Steps submitted while held are answered only after Release.
  void Hold();
  void Release();

  // What was seen so far.
  std::vector<model::Step> Steps() const;
  int64_t MaxInFlight() const;
  int64_t UsedBlocks() const;
  int64_t Sequences() const;
  int64_t Skipped() const;
  // The first thing a real stage would have refused.
  absl::Status Violation() const;
  // Waits until `count` steps were submitted; false after ten seconds.
  bool AwaitSteps(size_t count) const;

 private:
  struct Pending {
    model::Step step;
    std::vector<TokenId> tokens;
    Callback done;
    EarlyCallback early;
  };
  // A step whose far rows are still on their way.
  struct Waiting {
    absl::Time ready;
    Callback done;
    absl::StatusOr<cluster::StepOutcome> outcome;
  };
  void Work();
  absl::StatusOr<cluster::StepOutcome> Compute(const Pending& next)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // Answers of steps that have waited long enough, or with `all` those of all.
  void AnswerWaiting(bool all);
  // Tells what the near rows alone say.
  void TellEarly(const Pending& step, const cluster::StepOutcome& outcome) const;

  const FakePipelineOptions options_;
  model::Model model_;
  model::RuntimeLimits limits_;

  mutable absl::Mutex mutex_;
  ToyStage stage_ ABSL_GUARDED_BY(mutex_);
  std::deque<Pending> pending_ ABSL_GUARDED_BY(mutex_);
  std::set<uint64_t> withdrawn_ ABSL_GUARDED_BY(mutex_);  // of pending_
  int64_t skipped_ ABSL_GUARDED_BY(mutex_) = 0;
  std::vector<model::Step> steps_ ABSL_GUARDED_BY(mutex_);
  absl::Status status_ ABSL_GUARDED_BY(mutex_);
  absl::Status violation_ ABSL_GUARDED_BY(mutex_);
  int64_t in_flight_ ABSL_GUARDED_BY(mutex_) = 0;
  int64_t max_in_flight_ ABSL_GUARDED_BY(mutex_) = 0;
  bool held_ ABSL_GUARDED_BY(mutex_) = false;
  bool closing_ ABSL_GUARDED_BY(mutex_) = false;
  std::deque<Waiting> waiting_;  // the thread's own
  std::thread thread_;
};

class FakePipelineSource : public cluster::PipelineSource {
 public:
  explicit FakePipelineSource(std::shared_ptr<cluster::Pipeline> pipeline = nullptr)
      : pipeline_(std::move(pipeline)) {}
  absl::StatusOr<std::shared_ptr<cluster::Pipeline>> CurrentPipeline() override;
  void Set(std::shared_ptr<cluster::Pipeline> pipeline);

 private:
  absl::Mutex mutex_;
  std::shared_ptr<cluster::Pipeline> pipeline_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace renga::serving

#endif  // RENGA_COORDINATOR_SERVING_TESTING_FAKE_PIPELINE_H_

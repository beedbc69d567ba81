// A block of vocabulary rows of the output matrix on a backend: final norm, logits, best rows.
#ifndef RENGA_WORKER_ENGINE_HEAD_BLOCK_H_
#define RENGA_WORKER_ENGINE_HEAD_BLOCK_H_

#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "model/architecture.h"
#include "model/block_rows.h"
#include "model/shard_spec.h"
#include "model/step.h"
#include "worker/engine/hot_head.h"
#include "worker/engine/screened_head.h"
#include "worker/engine/weight_loader.h"
#include "worker/kernels/backend.h"

namespace renga::engine {

// Not thread-safe.
class HeadBlock {
 public:
  // Loads these rows, not empty and inside the vocabulary. `backend` outlives the block. With a
  // screen that CanUse has passed the rows, which are contiguous, stay on disk; without one
  // limits.approximation may name hot rows that answer alone.
  static absl::StatusOr<std::unique_ptr<HeadBlock>> Load(
      const model::Model& model, const model::BlockRows& rows, const model::RuntimeLimits& limits,
      kernels::Backend* backend, WeightLoader& loader, std::shared_ptr<const ScreenFile> screen);
  // Whether a screen is one of this model's output matrix, of `type`.
  static bool CanUse(const ScreenFile& screen, const model::ModelConfig& config,
                     base::DataType type);
  // Says what a screen has saved, in the log.
  ~HeadBlock();

  // `outputs` is step.output_count() x d_model, at most max_step_outputs rows, of a step that
  // CheckStepSize has passed. One HeadRow each, ids absolute. kInvalidArgument for allowed tokens
  // that are none of this vocabulary.
  absl::StatusOr<std::vector<model::HeadRow>> Run(const model::Step& step,
                                                  std::span<const float> outputs);

 private:
  // How an output is answered.
  struct Asked {
    int64_t top_k = 0;
    float within = 0;  // with top_k 0
    // With `within`: from the best logit with this draw's noise.
    double draw_temperature = 0;
    uint64_t draw_seed = 0;
    uint64_t draw_position = 0;
    // Of tokens that may be answered, as long as the step is there; null: all. Always null where
    // every logit is.
    const model::TokenMask* allowed = nullptr;
    bool by_screen = false;
    bool hot_only = false;
    friend bool operator==(const Asked&, const Asked&) = default;
  };

  HeadBlock(const model::Model& model, const model::BlockRows& rows,
            const model::Approximation& approximation, kernels::Backend* backend)
      : config_(model.config), rows_(rows), approximation_(approximation), backend_(backend) {}

  absl::Status LoadRows(const model::RuntimeLimits& limits, WeightLoader& loader,
                        std::shared_ptr<const ScreenFile> screen);
  // For the slot's output `index`.
  Asked HowToAnswer(const model::StepSlot& slot, int64_t index) const;
  // `count` outputs from `first` on, normed, that are answered in the same way.
  absl::Status AnswerRun(const Asked& asked, int64_t first, int64_t count,
                         std::vector<model::HeadRow>& answers);

  // `first` of the outputs, normed, and `count` of them.
  kernels::RowsView Input(int64_t first, int64_t count) const;
  absl::Status NormOutputs(std::span<const float> outputs, int64_t count);
  // All logits of normed outputs.
  absl::Status ComputeLogits(int64_t first, int64_t count);
  // The same from the rows that can matter; those that take more get all logits.
  absl::Status AnswerByScreen(int64_t first, int64_t count, const Asked& asked,
                              std::vector<model::HeadRow>& answers);
  // Leaves of an answer with all of the block's logits those that are asked for, with their ids,
  // best first.
  void KeepAsked(const Asked& asked, model::HeadRow& answer) const;
  // The best ones that are allowed.
  void KeepBest(const Asked& asked, model::HeadRow& answer) const;
  // Those near the best one. Where the best is no finite number all of them stay.
  void KeepWithin(const Asked& asked, model::HeadRow& answer) const;
  // The block's rows that may be answered, by their places in the block, ascending.
  std::vector<int64_t> Places(const Asked& asked) const;
  // Answers for `count` rows of logits from `first` on, all asked the same.
  absl::Status Answer(int64_t first, int64_t count, const Asked& asked,
                      std::vector<model::HeadRow>& answers);
  kernels::RowsView Logits(int64_t first, int64_t count) const;

  const model::ModelConfig config_;
  const model::BlockRows rows_;
  const model::Approximation approximation_;
  kernels::Backend* const backend_;
  std::unique_ptr<kernels::Buffer> norm_;
  // One of three has the rows.
  std::unique_ptr<kernels::WeightMatrix> matrix_;
  std::unique_ptr<ScreenedHead> screened_;
  std::unique_ptr<HotHead> hot_;
  absl::Duration screened_time_;
  std::unique_ptr<kernels::Buffer> input_;   // max_step_outputs x d_model
  std::unique_ptr<kernels::Buffer> logits_;  // max_step_outputs x rows_.size(); null: hot_ has its
};

}  // namespace renga::engine

#endif  // RENGA_WORKER_ENGINE_HEAD_BLOCK_H_

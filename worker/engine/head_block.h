// A block of vocabulary rows of the output matrix on a backend: final norm, logits, best rows.
#ifndef RENGA_WORKER_ENGINE_HEAD_BLOCK_H_
#define RENGA_WORKER_ENGINE_HEAD_BLOCK_H_

#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "model/architecture.h"
#include "model/shard_spec.h"
#include "model/step.h"
#include "worker/engine/weight_loader.h"
#include "worker/kernels/backend.h"

namespace renga::engine {

// Not thread-safe.
class HeadBlock {
 public:
  // Loads rows [rows.begin, rows.end), not empty and inside the vocabulary. `backend` outlives the
  // block.
  static absl::StatusOr<std::unique_ptr<HeadBlock>> Load(const model::Model& model,
                                                         const model::Range& rows,
                                                         const model::RuntimeLimits& limits,
                                                         kernels::Backend* backend,
                                                         WeightLoader& loader);

  // `outputs` is step.output_count() x d_model, at most max_step_outputs rows, of a step that
  // CheckStepSize has passed. One HeadRow each, ids absolute.
  absl::StatusOr<std::vector<model::HeadRow>> Run(const model::Step& step,
                                                  std::span<const float> outputs);

 private:
  HeadBlock(const model::Model& model, const model::Range& rows, kernels::Backend* backend)
      : config_(model.config), rows_(rows), backend_(backend) {}

  absl::Status ComputeLogits(std::span<const float> outputs, int64_t count);
  // Answers for `count` rows of logits from `first` on, all asked for the same k; 0: every logit.
  absl::Status Answer(int64_t first, int64_t count, int64_t top_k,
                      std::vector<model::HeadRow>& answers);
  kernels::RowsView Logits(int64_t first, int64_t count) const;

  const model::ModelConfig config_;
  const model::Range rows_;
  kernels::Backend* const backend_;
  std::unique_ptr<kernels::Buffer> norm_;
  std::unique_ptr<kernels::WeightMatrix> matrix_;
  std::unique_ptr<kernels::Buffer> input_;   // max_step_outputs x d_model
  std::unique_ptr<kernels::Buffer> logits_;  // max_step_outputs x rows_.size()
};

}  // namespace renga::engine

#endif  // RENGA_WORKER_ENGINE_HEAD_BLOCK_H_

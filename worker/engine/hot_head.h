// A head block whose hot rows may answer alone: the rows of the output matrix lie in two matrices,
// the hot ones and the others.
//
// When hot rows answer, every other row counts as a little less likely than the least likely of
// them. When all rows answer, ids and logits are those of one matrix, bit for bit, as a result row
// depends on its own row alone; only the last bits of the sum of exponentials may differ.
#ifndef RENGA_WORKER_ENGINE_HOT_HEAD_H_
#define RENGA_WORKER_ENGINE_HOT_HEAD_H_

#include <array>
#include <cstdint>
#include <memory>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "model/approximation.h"
#include "model/architecture.h"
#include "model/shard_spec.h"
#include "model/step.h"
#include "worker/engine/weight_loader.h"
#include "worker/kernels/backend.h"

namespace renga::engine {

// Not thread-safe.
class HotHead {
 public:
  // Whether some, but not all, of the block's rows are hot; otherwise it is an ordinary block.
  static bool Divides(const model::RowSet& hot, const model::Range& rows);

  // Loads both matrices; `backend` outlives the head. As many outputs as `max_outputs` are answered
  // at a time.
  static absl::StatusOr<std::unique_ptr<HotHead>> Load(
      const model::TensorSpec& output, const model::RowSet& hot, const model::Range& rows,
      int64_t max_outputs, kernels::Backend* backend, WeightLoader& loader);

  // One answer for each row of `input`, normed; top_k 0: every logit of the block.
  absl::Status Answer(kernels::ConstRowsView input, int64_t top_k, bool hot_only,
                      std::vector<model::HeadRow>& answers);

 private:
  // Some of the block's rows, as a matrix.
  struct Part {
    std::vector<int32_t> ids;  // absolute, ascending
    std::unique_ptr<kernels::WeightMatrix> matrix;
    std::unique_ptr<kernels::Buffer> logits;  // max_outputs x ids
  };

  HotHead(const model::Range& rows, kernels::Backend* backend) : rows_(rows), backend_(backend) {}
  kernels::RowsView Logits(const Part& part, int64_t count) const;
  // The part's best rows of each output, with absolute ids.
  absl::StatusOr<std::vector<kernels::TopRow>> Best(const Part& part, int64_t count,
                                                    int64_t top_k) const;
  // Every logit of one output; those of parts that were not computed are `missing`.
  absl::StatusOr<std::vector<float>> AllLogits(int64_t output, bool hot_only) const;
  // Fills an answer up to `wanted` rows with cold ones.
  void AddColdRows(size_t wanted, model::HeadRow& answer) const;

  const model::Range rows_;
  kernels::Backend* const backend_;
  std::array<Part, 2> parts_;  // hot, cold
};

}  // namespace renga::engine

#endif  // RENGA_WORKER_ENGINE_HOT_HEAD_H_

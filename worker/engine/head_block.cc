#include "worker/engine/head_block.h"

#include <algorithm>
#include <utility>

#include "base/status_macros.h"

namespace renga::engine {
namespace {

constexpr int64_t kFloatBytes = sizeof(float);

}  // namespace

absl::StatusOr<std::unique_ptr<HeadBlock>> HeadBlock::Load(const model::Model& model,
                                                           const model::Range& rows,
                                                           const model::RuntimeLimits& limits,
                                                           kernels::Backend* backend,
                                                           WeightLoader& loader) {
  std::unique_ptr<HeadBlock> block(new HeadBlock(model, rows, backend));
  RENGA_ASSIGN_OR_RETURN(block->norm_, loader.LoadVector(model::OutputNormTensor(model.config)));
  RENGA_ASSIGN_OR_RETURN(block->matrix_,
                         loader.LoadMatrix(model::OutputTensor(model.config), rows));
  RENGA_ASSIGN_OR_RETURN(block->input_, backend->Allocate(limits.max_step_outputs *
                                                          model.config.d_model * kFloatBytes));
  RENGA_ASSIGN_OR_RETURN(block->logits_,
                         backend->Allocate(limits.max_step_outputs * rows.size() * kFloatBytes));
  return block;
}

absl::StatusOr<std::vector<model::HeadRow>> HeadBlock::Run(const model::Step& step,
                                                           std::span<const float> outputs) {
  const int64_t total = step.output_count();
  std::vector<model::HeadRow> answers;
  answers.reserve(total);
  if (total == 0) return answers;
  RENGA_RETURN_IF_ERROR(ComputeLogits(outputs, total));
  // Neighbours that ask the same are answered by one call.
  int64_t first = 0;
  int64_t count = 0;
  int64_t top_k = 0;
  for (const model::StepSlot& slot : step.slots) {
    if (count > 0 && slot.top_k != top_k) {
      RENGA_RETURN_IF_ERROR(Answer(first, count, top_k, answers));
      first += count;
      count = 0;
    }
    top_k = slot.top_k;
    count += slot.output_count;
  }
  RENGA_RETURN_IF_ERROR(Answer(first, count, top_k, answers));
  return answers;
}

absl::Status HeadBlock::ComputeLogits(std::span<const float> outputs, int64_t count) {
  RENGA_RETURN_IF_ERROR(backend_->Upload(std::as_bytes(outputs), *input_, 0));
  const kernels::RowsView input{.data = reinterpret_cast<float*>(input_->data()),
                                .rows = count,
                                .columns = config_.d_model,
                                .stride = config_.d_model};
  RENGA_RETURN_IF_ERROR(backend_->RmsNorm(input, reinterpret_cast<const float*>(norm_->data()),
                                          static_cast<float>(config_.norm_epsilon), input));
  const kernels::LinearOutput output{
      .matrix = matrix_.get(), .bias = nullptr, .out = Logits(0, count)};
  return backend_->Linear(input, std::span(&output, 1));
}

absl::Status HeadBlock::Answer(int64_t first, int64_t count, int64_t top_k,
                               std::vector<model::HeadRow>& answers) {
  std::vector<kernels::TopRow> best(count);
  RENGA_RETURN_IF_ERROR(backend_->TopK(Logits(first, count), std::min(top_k, rows_.size()), best));
  for (int64_t i = 0; i < count; ++i) {
    model::HeadRow answer;
    answer.max_logit = best[i].max_logit;
    answer.sum_exp = best[i].sum_exp;
    if (top_k > 0) {
      answer.ids = std::move(best[i].indices);
      for (int32_t& id : answer.ids) id += static_cast<int32_t>(rows_.begin);
      answer.logits = std::move(best[i].logits);
    } else {
      answer.logits.resize(rows_.size());
      RENGA_RETURN_IF_ERROR(backend_->Download(*logits_, (first + i) * rows_.size() * kFloatBytes,
                                               std::as_writable_bytes(std::span(answer.logits))));
    }
    answers.push_back(std::move(answer));
  }
  return absl::OkStatus();
}

kernels::RowsView HeadBlock::Logits(int64_t first, int64_t count) const {
  return {.data = reinterpret_cast<float*>(logits_->data()) + first * rows_.size(),
          .rows = count,
          .columns = rows_.size(),
          .stride = rows_.size()};
}

}  // namespace renga::engine

#include "worker/engine/shard.h"

#include <algorithm>
#include <limits>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/kv_type.h"
#include "base/status_macros.h"
#include "model/footprint.h"
#include "worker/engine/head_block.h"
#include "worker/engine/layer_stack.h"
#include "worker/engine/sequence_table.h"
#include "worker/engine/weight_loader.h"

namespace renga::engine {
namespace {

// Far above any use; small enough that products with a model's sizes fit int64.
constexpr int64_t kMaxKvBlocks = int64_t{1} << 26;
constexpr int64_t kMaxStepTokens = int64_t{1} << 16;

// A backend may round the rows of a matrix up. The fixed part of the scratch has room for that
// much; only layouts that take more are reserved on top of what the planner counted.
constexpr int64_t kLayoutBytesInScratch = int64_t{1} << 20;

absl::Status CheckSpec(const model::ModelConfig& config, const model::ShardSpec& spec) {
  const auto inside = [](const model::Range& range, int64_t size) {
    return range.empty() || (range.begin >= 0 && range.end <= size);
  };
  if (!inside(spec.layers, config.n_layers) || !inside(spec.head_rows, config.vocab_size)) {
    return absl::InvalidArgumentError(absl::StrCat(
        "layers ", spec.layers.begin, " to ", spec.layers.end, " and rows ", spec.head_rows.begin,
        " to ", spec.head_rows.end, " are not inside a model of ", config.n_layers, " layers and ",
        config.vocab_size, " rows"));
  }
  if (spec.layers.empty() && spec.head_rows.empty()) {
    return absl::InvalidArgumentError("a shard without layers and without head rows");
  }
  return absl::OkStatus();
}

absl::Status CheckLimits(const model::ShardSpec& spec, const model::RuntimeLimits& limits) {
  const auto within = [](int64_t value, int64_t low, int64_t high) {
    return value >= low && value <= high;
  };
  if (!within(limits.kv_blocks, spec.layers.empty() ? 0 : 1, kMaxKvBlocks) ||
      !within(limits.max_step_tokens, 1, kMaxStepTokens) ||
      !within(limits.max_step_outputs, spec.head_rows.empty() ? 0 : 1, limits.max_step_tokens)) {
    return absl::InvalidArgumentError(absl::StrCat(
        "limits make no sense: ", limits.kv_blocks, " KV blocks, ", limits.max_step_tokens,
        " tokens and ", limits.max_step_outputs, " outputs in a step"));
  }
  if (!base::IsKvType(limits.kv_type)) {
    return absl::InvalidArgumentError("the KV cache holds F16, F32 or Q8_0 only");
  }
  return absl::OkStatus();
}

// What a shard needs, by the types its source has.
struct ShardNeeds {
  model::ModelFootprint footprint;  // of the tensors it loads; other layers are 0
  int64_t load_bytes = 0;           // of weights that are read
  int64_t layout_bytes = 0;         // that the backend's layout takes beyond the file's
};

// Counts the rows of one tensor that are loaded, and returns their bytes in the file.
absl::StatusOr<int64_t> Count(const model::TensorSpec& tensor, WeightSource& source,
                              const kernels::Backend& backend, ShardNeeds& needs) {
  RENGA_ASSIGN_OR_RETURN(const int64_t stored, StoredBytes(tensor, source));
  needs.load_bytes += stored;
  if (!tensor.must_be_f32) {
    RENGA_ASSIGN_OR_RETURN(const base::DataType type, source.TensorType(tensor.name));
    const int64_t held = backend.MatrixBytes(type, tensor.rows, tensor.columns);
    needs.layout_bytes += std::max<int64_t>(held - stored, 0);
  }
  return stored;
}

absl::StatusOr<ShardNeeds> MeasureNeeds(const model::Model& model, const model::ShardSpec& spec,
                                        WeightSource& source, const kernels::Backend& backend) {
  const model::ModelConfig& config = model.config;
  ShardNeeds needs;
  needs.footprint.layer_weight_bytes.assign(config.n_layers, 0);
  for (int64_t layer = spec.layers.begin; layer < spec.layers.end; ++layer) {
    for (const auto& tensor : model.architecture->LayerTensors(config, layer)) {
      RENGA_ASSIGN_OR_RETURN(const int64_t bytes, Count(tensor, source, backend, needs));
      needs.footprint.layer_weight_bytes[layer] += bytes;
    }
  }
  // Vectors of F32; the plan counts both for every shard, whichever of them it loads.
  const int64_t norm_bytes = config.d_model * static_cast<int64_t>(sizeof(float));
  const int64_t factor_bytes =
      config.rope_has_factors ? config.rope.dims / 2 * static_cast<int64_t>(sizeof(float)) : 0;
  needs.footprint.shared_bytes = norm_bytes + factor_bytes;
  if (!spec.layers.empty()) needs.load_bytes += factor_bytes;
  if (!spec.head_rows.empty()) {
    needs.load_bytes += norm_bytes;
    model::TensorSpec rows = model::OutputTensor(config);
    rows.rows = spec.head_rows.size();
    RENGA_ASSIGN_OR_RETURN(const int64_t bytes, Count(rows, source, backend, needs));
    needs.footprint.head_row_bytes = bytes / rows.rows;
  }
  return needs;
}

class ShardImpl : public Shard {
 public:
  ShardImpl(const model::Model& model, const model::ShardSpec& spec,
            const model::RuntimeLimits& limits, MemoryBudget::Reservation reservation)
      : d_model_(model.config.d_model),
        spec_(spec),
        limits_(limits),
        reservation_(std::move(reservation)),
        sequences_(limits) {}

  absl::Status LoadParts(const model::Model& model, kernels::Backend* backend,
                         WeightLoader& loader) {
    if (!spec_.layers.empty()) {
      RENGA_ASSIGN_OR_RETURN(layers_,
                             LayerStack::Load(model, spec_.layers, limits_, backend, loader));
    }
    if (!spec_.head_rows.empty()) {
      RENGA_ASSIGN_OR_RETURN(head_,
                             HeadBlock::Load(model, spec_.head_rows, limits_, backend, loader));
    }
    return backend->Synchronize();
  }

  absl::Status RunLayers(const model::Step& step, std::span<float> rows) override {
    if (layers_ == nullptr) return absl::FailedPreconditionError("this shard has no layers");
    RENGA_RETURN_IF_ERROR(failure_);
    RENGA_RETURN_IF_ERROR(CheckStepSize(step, limits_));
    RENGA_RETURN_IF_ERROR(CheckRows(step.token_count(), rows.size()));
    RENGA_RETURN_IF_ERROR(sequences_.Apply(step));
    if (rows.empty()) return absl::OkStatus();
    DescribeRows(step);
    const absl::Status status = layers_->Run(rows, positions_, slots_);
    if (!status.ok()) {
      failure_ = absl::FailedPreconditionError(
          absl::StrCat("sequences are undefined since a step failed: ", status.message()));
    }
    return status;
  }

  absl::StatusOr<std::vector<model::HeadRow>> RunHead(const model::Step& step,
                                                      std::span<const float> rows) override {
    if (head_ == nullptr) return absl::FailedPreconditionError("this shard has no head block");
    RENGA_RETURN_IF_ERROR(CheckStepSize(step, limits_));
    RENGA_RETURN_IF_ERROR(CheckRows(step.output_count(), rows.size()));
    return head_->Run(step, rows);
  }

  void ResetSequences() override {
    sequences_.Reset();
    failure_ = absl::OkStatus();
  }

  const model::ShardSpec& spec() const override { return spec_; }
  int64_t memory_bytes() const override { return reservation_.bytes(); }

 private:
  absl::Status CheckRows(int64_t count, size_t floats) const {
    if (floats == static_cast<size_t>(count * d_model_)) return absl::OkStatus();
    return absl::InvalidArgumentError(absl::StrCat("the step has ", count, " rows of ", d_model_,
                                                   " numbers, but ", floats, " were given"));
  }

  // Fills positions_ and slots_ for a step that was applied.
  void DescribeRows(const model::Step& step) {
    positions_.clear();
    slots_.clear();
    for (const model::StepSlot& slot : step.slots) {
      slots_.push_back({.first_row = static_cast<int64_t>(positions_.size()),
                        .row_count = slot.token_count,
                        .first_position = slot.first_position,
                        .blocks = sequences_.Find(slot.sequence)->blocks});
      for (int64_t i = 0; i < slot.token_count; ++i) positions_.push_back(slot.first_position + i);
    }
  }

  const int64_t d_model_;
  const model::ShardSpec spec_;
  const model::RuntimeLimits limits_;
  const MemoryBudget::Reservation reservation_;
  SequenceTable sequences_;
  std::unique_ptr<LayerStack> layers_;  // null: none
  std::unique_ptr<HeadBlock> head_;     // null: none
  absl::Status failure_;                // set when a device failed in the middle of a step
  std::vector<int64_t> positions_;
  std::vector<kernels::SequenceSlot> slots_;
};

}  // namespace

absl::StatusOr<std::unique_ptr<Shard>> Shard::Load(const model::Model& model,
                                                   const model::ShardSpec& spec,
                                                   const model::RuntimeLimits& limits,
                                                   kernels::Backend* backend, MemoryBudget* budget,
                                                   WeightSource* source,
                                                   const LoadProgress& progress) {
  RENGA_RETURN_IF_ERROR(CheckSpec(model.config, spec));
  RENGA_RETURN_IF_ERROR(CheckLimits(spec, limits));
  RENGA_ASSIGN_OR_RETURN(const ShardNeeds needs, MeasureNeeds(model, spec, *source, *backend));
  const model::ShardBytes bytes = model::MeasureShard(model, needs.footprint, spec, limits);
  RENGA_ASSIGN_OR_RETURN(
      MemoryBudget::Reservation reservation,
      budget->Reserve(
          bytes.total() + std::max<int64_t>(needs.layout_bytes - kLayoutBytesInScratch, 0),
          absl::StrCat("layers ", spec.layers.begin, " to ", spec.layers.end, " and head rows ",
                       spec.head_rows.begin, " to ", spec.head_rows.end)));
  auto shard = std::make_unique<ShardImpl>(model, spec, limits, std::move(reservation));
  WeightLoader loader(backend, source, progress, needs.load_bytes);
  RENGA_RETURN_IF_ERROR(shard->LoadParts(model, backend, loader));
  return shard;
}

std::vector<float> GatherOutputs(const model::Step& step, std::span<const float> rows,
                                 int64_t d_model) {
  std::vector<float> outputs;
  outputs.reserve(step.output_count() * d_model);
  int64_t end = 0;  // of the slot, in rows
  for (const model::StepSlot& slot : step.slots) {
    end += slot.token_count;
    outputs.insert(outputs.end(), rows.begin() + (end - slot.output_count) * d_model,
                   rows.begin() + end * d_model);
  }
  return outputs;
}

}  // namespace renga::engine

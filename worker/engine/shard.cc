#include "worker/engine/shard.h"

#include <algorithm>
#include <limits>
#include <optional>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/byte_size.h"
#include "base/data_type.h"
#include "base/kv_type.h"
#include "base/log.h"
#include "base/status_macros.h"
#include "model/block_rows.h"
#include "model/embedding.h"
#include "model/feed_forward_ops.h"
#include "model/footprint.h"
#include "model/late_program.h"
#include "worker/engine/cold_neurons.h"
#include "worker/engine/head_block.h"
#include "worker/engine/layer_stack.h"
#include "worker/engine/lazy_layers.h"
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
  if (spec.empty()) {
    return absl::InvalidArgumentError("a shard without layers, head rows and embedding");
  }
  if (spec.layers.empty() && spec.slice.has_value()) {
    return absl::InvalidArgumentError("a slice of no layers");
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

// Counts the part of one tensor that is held.
absl::Status Count(const model::TensorSpec& tensor, const model::TensorPart& part,
                   WeightSource& source, const kernels::Backend& backend, ShardNeeds& needs) {
  if (part.rows.empty() || part.columns.empty()) return absl::OkStatus();
  // Rows are read whole.
  model::TensorPart read = part;
  if (!tensor.must_be_f32) read.columns = {.begin = 0, .end = tensor.columns};
  RENGA_ASSIGN_OR_RETURN(const int64_t read_bytes, StoredBytes(tensor, read, source));
  needs.load_bytes += read_bytes;
  if (tensor.must_be_f32) return absl::OkStatus();
  RENGA_ASSIGN_OR_RETURN(const int64_t stored, StoredBytes(tensor, part, source));
  RENGA_ASSIGN_OR_RETURN(const base::DataType type, source.TensorType(tensor.name));
  // Experts are a matrix each.
  const int64_t matrices = std::max<int64_t>(tensor.experts, 1);
  const int64_t held =
      matrices * backend.MatrixBytes(type, part.rows.size() / matrices, part.columns.size());
  needs.layout_bytes += std::max<int64_t>(held - stored, 0);
  return absl::OkStatus();
}

// What the shard's layers take, and where they may be cut.
absl::Status MeasureLayers(const model::Model& model, const model::Range& layers,
                           const model::Approximation& approximation, WeightSource& source,
                           model::ModelFootprint& footprint) {
  const auto type_of = [&](const model::TensorSpec& tensor) {
    return source.TensorType(tensor.name);
  };
  footprint.layers.assign(model.config.n_layers, {});
  for (int64_t layer = layers.begin; layer < layers.end; ++layer) {
    RENGA_ASSIGN_OR_RETURN(footprint.layers[static_cast<size_t>(layer)],
                           model::MeasureLayer(model, layer, type_of, approximation));
    for (const auto& tensor : model.architecture->LayerTensors(model.config, layer)) {
      RENGA_ASSIGN_OR_RETURN(const base::DataType type, source.TensorType(tensor.name));
      model::Widen(tensor, type, model.config, footprint.slice_units);
    }
  }
  return absl::OkStatus();
}

// Rows of a tensor in two matrices, the cold ones with few bits: a backend rounds both up.
absl::Status CountByHeat(const model::TensorSpec& tensor, const model::TensorPart& part,
                         const NeuronOrder& order, WeightSource& source,
                         const kernels::Backend& backend, ShardNeeds& needs) {
  RENGA_RETURN_IF_ERROR(Count(tensor, part, source, backend, needs));
  RENGA_ASSIGN_OR_RETURN(const base::DataType type, source.TensorType(tensor.name));
  const auto extra = [&](base::DataType held, int64_t rows) {
    const auto row_bytes = base::RowBytes(held, tensor.columns);
    // Where three bits do not fit, loading says so.
    if (!row_bytes.ok() || rows == 0) return int64_t{0};
    return backend.MatrixBytes(held, rows, tensor.columns) - rows * *row_bytes;
  };
  needs.layout_bytes += std::max<int64_t>(0, extra(type, order.hot));
  needs.layout_bytes +=
      std::max<int64_t>(0, extra(base::DataType::kR3, part.rows.size() - order.hot));
  return absl::OkStatus();
}

// Counts what is held of every layer, with the part of it that comes late.
absl::Status CountLayers(const model::Model& model, const model::ShardSpec& spec,
                         const model::Approximation& approximation, WeightSource& source,
                         const kernels::Backend& backend, ShardNeeds& needs) {
  const model::ModelConfig& config = model.config;
  model::LayerSlice slice = spec.slice.value_or(model::WholeLayer(config));
  model::LayerSlice late_slice = slice;
  std::vector<model::LateProgram::Part> late_parts;
  if (approximation.late_percent > 0) {
    RENGA_ASSIGN_OR_RETURN(model::LateProgram late,
                           model::MakeLateProgram(model, approximation.late_percent));
    slice.ff = late.early;
    late_slice.ff = late.late;
    late_parts = std::move(late.added);
  }
  const model::LayerProgram program = model.architecture->Program(config);
  for (int64_t layer = spec.layers.begin; layer < spec.layers.end; ++layer) {
    const auto tensors = model.architecture->LayerTensors(config, layer);
    RENGA_ASSIGN_OR_RETURN(const model::OpRange ops,
                           model::OpsOfLayer(program, approximation, layer));
    NeuronOrder order;
    if (approximation.cold_neurons != nullptr) {
      order = OrderNeurons(*approximation.cold_neurons, layer * config.d_ff, slice.ff);
    }
    for (size_t i = 0; i < tensors.size(); ++i) {
      const model::TensorSpec& tensor = tensors[i];
      if (!tensor.must_be_f32 && !model::ReadsTensor(program, ops, i)) continue;
      const model::TensorPart part = model::PartOf(tensor, config, slice);
      if (!order.neurons.empty() && tensor.cut == model::Cut::kFeedForward) {
        RENGA_RETURN_IF_ERROR(CountByHeat(tensor, part, order, source, backend, needs));
      } else {
        RENGA_RETURN_IF_ERROR(Count(tensor, part, source, backend, needs));
      }
    }
    for (const model::LateProgram::Part& part : late_parts) {
      const model::TensorSpec& tensor = tensors[static_cast<size_t>(part.tensor)];
      RENGA_RETURN_IF_ERROR(
          Count(tensor, model::PartOf(tensor, config, late_slice), source, backend, needs));
    }
  }
  return absl::OkStatus();
}

absl::StatusOr<ShardNeeds> MeasureNeeds(const model::Model& model, const model::ShardSpec& spec,
                                        const model::RuntimeLimits& limits, WeightSource& source,
                                        const kernels::Backend& backend, const ScreenFile* screen) {
  const model::ModelConfig& config = model.config;
  ShardNeeds needs;
  RENGA_RETURN_IF_ERROR(
      MeasureLayers(model, spec.layers, limits.approximation, source, needs.footprint));
  if (spec.slice.has_value()) {
    RENGA_RETURN_IF_ERROR(model::CheckSlice(config, needs.footprint.slice_units, *spec.slice));
  }
  RENGA_RETURN_IF_ERROR(CountLayers(model, spec, limits.approximation, source, backend, needs));
  // Vectors of F32; the plan counts both for every shard, whichever of them it loads.
  const int64_t norm_bytes = config.d_model * static_cast<int64_t>(sizeof(float));
  const int64_t factor_bytes =
      config.rope_has_factors ? config.rope.dims / 2 * static_cast<int64_t>(sizeof(float)) : 0;
  needs.footprint.shared_bytes = norm_bytes + factor_bytes;
  if (!spec.layers.empty()) needs.load_bytes += factor_bytes;
  if (spec.embedding) {
    const model::TensorSpec embedding = model::EmbeddingTensor(config);
    RENGA_ASSIGN_OR_RETURN(needs.footprint.embedding_bytes,
                           StoredBytes(embedding, model::WholeTensor(embedding), source));
    needs.load_bytes += needs.footprint.embedding_bytes;
  }
  if (!spec.head_rows.empty()) {
    needs.load_bytes += norm_bytes;
    const model::TensorSpec output = model::OutputTensor(config);
    model::TensorPart part = model::WholeTensor(output);
    const model::BlockRows rows =
        model::BlockRows::At(spec.head_rows, limits.near_rows.get(), config.vocab_size);
    part.rows = rows.range();
    if (screen != nullptr) {
      const int64_t held = ScreenedHead::ResidentBytes(*screen, rows.range());
      needs.footprint.head_row_bytes = (held + part.rows.size() - 1) / part.rows.size();
      return needs;
    }
    // Of scattered rows all that lie between them are read, and only they are held.
    RENGA_ASSIGN_OR_RETURN(const int64_t read, StoredBytes(output, part, source));
    part.rows.end = part.rows.begin + rows.size();
    RENGA_RETURN_IF_ERROR(Count(output, part, source, backend, needs));
    RENGA_ASSIGN_OR_RETURN(const int64_t bytes, StoredBytes(output, part, source));
    needs.load_bytes += read - bytes;
    const auto& hot = limits.approximation.hot_rows;
    // Read once for each of its matrices.
    if (hot != nullptr && HotHead::Divides(*hot, spec.head_rows)) needs.load_bytes += bytes;
    needs.footprint.head_row_bytes = bytes / part.rows.size();
  }
  return needs;
}

// The source's screen when it is one of this model's head; null: all rows are loaded.
absl::StatusOr<std::shared_ptr<const ScreenFile>> FindScreen(const model::Model& model,
                                                             const model::ShardSpec& spec,
                                                             const model::RuntimeLimits& limits,
                                                             WeightSource& source) {
  // Hot rows are in memory.
  if (spec.head_rows.empty() || limits.approximation.hot_rows != nullptr) return nullptr;
  const model::BlockRows rows =
      model::BlockRows::At(spec.head_rows, limits.near_rows.get(), model.config.vocab_size);
  // A screen is of blocks of neighbours.
  if (!rows.contiguous()) return nullptr;
  std::shared_ptr<const ScreenFile> screen = source.FindScreen();
  if (screen == nullptr) return nullptr;
  RENGA_ASSIGN_OR_RETURN(const base::DataType type,
                         source.TensorType(model::OutputTensor(model.config).name));
  if (HeadBlock::CanUse(*screen, model.config, type)) return screen;
  RENGA_LOG(WARNING) << "the screen of the head is another matrix's; all rows are loaded";
  return nullptr;
}

int64_t TotalBytes(const model::Model& model, const model::ShardSpec& spec,
                   const model::RuntimeLimits& limits, const ShardNeeds& needs) {
  return model::MeasureShard(model, needs.footprint, spec, limits).total() +
         std::max<int64_t>(needs.layout_bytes - kLayoutBytesInScratch, 0);
}

// Who wanted the head on disk hears it when that saves memory which is there.
void SayIfWholeHeadFits(int64_t with_screen, int64_t whole, const MemoryBudget& budget) {
  if (whole > budget.total_bytes() - budget.used_bytes()) return;
  RENGA_LOG(WARNING) << "the head stays on disk and saves "
                     << base::FormatByteSize(std::max<int64_t>(0, whole - with_screen))
                     << ", but all of it would fit into the memory that is offered, and most "
                        "answers would come sooner";
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

  // `lazy` has the layers' matrices, if anything is lazy; `screen`, or null, stands for the head's.
  absl::Status LoadParts(const model::Model& model, kernels::Backend* backend, WeightSource* source,
                         WeightLoader& loader, LazyLayers lazy,
                         std::shared_ptr<const ScreenFile> screen) {
    RENGA_RETURN_IF_ERROR(lazy.Pack(loader));
    if (!spec_.layers.empty()) {
      RENGA_ASSIGN_OR_RETURN(
          layers_, LayerStack::Load(model, spec_, limits_, backend, loader, std::move(lazy)));
      RENGA_RETURN_IF_ERROR(layers_->lazy().Start());
    }
    if (!spec_.head_rows.empty()) {
      const model::BlockRows rows =
          model::BlockRows::At(spec_.head_rows, limits_.near_rows.get(), model.config.vocab_size);
      RENGA_ASSIGN_OR_RETURN(
          head_, HeadBlock::Load(model, rows, limits_, backend, loader, std::move(screen)));
    }
    if (spec_.embedding) RENGA_RETURN_IF_ERROR(LoadEmbedding(model, source, loader));
    newly_packed_ = loader.TakeNewlyPacked();
    return backend->Synchronize();
  }

  void KeepRowsTogether() {
    if (layers_ != nullptr) layers_->KeepRowsTogether();
  }

  absl::StatusOr<std::vector<float>> Embed(std::span<const model::TokenId> tokens) override {
    if (!embedding_.has_value())
      return absl::FailedPreconditionError("this shard has no embedding");
    if (static_cast<int64_t>(tokens.size()) > limits_.max_step_tokens) {
      return absl::InvalidArgumentError(absl::StrCat(tokens.size(), " tokens in a step, at most ",
                                                     limits_.max_step_tokens, " were planned for"));
    }
    return embedding_->Rows(tokens);
  }

  absl::Status RunLayers(const model::Step& step, std::span<float> rows, base::Communicator* group,
                         const StepWatch& withdrawn) override {
    RENGA_RETURN_IF_ERROR(CheckHasLayers());
    RENGA_RETURN_IF_ERROR(CheckStepSize(step, limits_));
    RENGA_RETURN_IF_ERROR(CheckRows(step.token_count(), rows.size()));
    RENGA_RETURN_IF_ERROR(sequences_.Apply(step));
    if (rows.empty()) return absl::OkStatus();
    DescribeRows(step);
    const absl::Status status = layers_->Run(rows, positions_, slots_, group, withdrawn);
    if (!status.ok()) {
      failure_ = absl::FailedPreconditionError(
          absl::StrCat("sequences are undefined since a step failed: ", status.message()));
    }
    return status;
  }

  absl::Status SkipLayers(const model::Step& step) override {
    RENGA_RETURN_IF_ERROR(CheckHasLayers());
    return sequences_.Apply(step);
  }

  absl::StatusOr<std::vector<model::HeadRow>> RunHead(const model::Step& step,
                                                      std::span<const float> rows) override {
    if (head_ == nullptr) return absl::FailedPreconditionError("this shard has no head block");
    RENGA_RETURN_IF_ERROR(CheckStepSize(step, limits_));
    RENGA_RETURN_IF_ERROR(CheckRows(step.output_count(), rows.size()));
    return head_->Run(step, rows);
  }

  uint32_t left_out() const override { return layers_ == nullptr ? 0 : layers_->left_out(); }

  void ResetSequences() override {
    sequences_.Reset();
    failure_ = absl::OkStatus();
  }

  absl::Status ObserveNeurons(NeuronObserver observer) override {
    if (layers_ == nullptr) return absl::FailedPreconditionError("this shard has no layers");
    return layers_->ObserveNeurons(std::move(observer));
  }

  absl::Status ObserveExperts(ExpertObserver observer) override {
    if (layers_ == nullptr) return absl::FailedPreconditionError("this shard has no layers");
    return layers_->ObserveExperts(std::move(observer));
  }

  const model::ShardSpec& spec() const override { return spec_; }
  int64_t memory_bytes() const override { return reservation_.bytes(); }
  const std::vector<HeldMatrix>& newly_packed() const override { return newly_packed_; }

  absl::StatusOr<bool> LoadMore() override {
    if (layers_ == nullptr || layers_->lazy().residency == nullptr) return false;
    RENGA_ASSIGN_OR_RETURN(const bool more, layers_->lazy().residency->LoadMore());
    if (!more) {
      const std::vector<HeldMatrix> packed = layers_->lazy().residency->TakeNewlyPacked();
      newly_packed_.insert(newly_packed_.end(), packed.begin(), packed.end());
    }
    return more;
  }
  std::vector<MatrixKey> Unpacked() const override {
    if (layers_ == nullptr || layers_->lazy().experts == nullptr) return {};
    return layers_->lazy().experts->Unpacked();
  }
  ResidencyReport residency() const override {
    return layers_ == nullptr ? ResidencyReport() : layers_->lazy().report();
  }

 private:
  // In the host's memory, as stored: a step reads a few rows of it.
  absl::Status LoadEmbedding(const model::Model& model, WeightSource* source,
                             WeightLoader& loader) {
    const model::TensorSpec tensor = model::EmbeddingTensor(model.config);
    RENGA_ASSIGN_OR_RETURN(const base::DataType type, source->TensorType(tensor.name));
    RENGA_ASSIGN_OR_RETURN(const int64_t bytes,
                           StoredBytes(tensor, model::WholeTensor(tensor), *source));
    embedding_bytes_.resize(static_cast<size_t>(bytes));
    RENGA_RETURN_IF_ERROR(loader.LoadStored(tensor, embedding_bytes_));
    RENGA_ASSIGN_OR_RETURN(embedding_,
                           model::EmbeddingTable::Over(embedding_bytes_, type, model.config));
    return absl::OkStatus();
  }

  absl::Status CheckHasLayers() const {
    if (layers_ == nullptr) return absl::FailedPreconditionError("this shard has no layers");
    return failure_;
  }
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
  std::vector<std::byte> embedding_bytes_;
  std::optional<model::EmbeddingTable> embedding_;  // over them
  std::vector<HeldMatrix> newly_packed_;
  absl::Status failure_;  // set when a device failed in the middle of a step
  std::vector<int64_t> positions_;
  std::vector<kernels::SequenceSlot> slots_;
};

}  // namespace

absl::StatusOr<std::unique_ptr<Shard>> Shard::Load(const model::Model& model,
                                                   const model::ShardSpec& spec,
                                                   const model::RuntimeLimits& limits,
                                                   kernels::Backend* backend, MemoryBudget* budget,
                                                   WeightSource* source,
                                                   const LoadProgress& progress, LoadMode mode) {
  RENGA_RETURN_IF_ERROR(CheckSpec(model.config, spec));
  RENGA_RETURN_IF_ERROR(CheckLimits(spec, limits));
  RENGA_RETURN_IF_ERROR(model::CheckApproximation(limits.approximation, model.config));
  RENGA_ASSIGN_OR_RETURN(std::shared_ptr<const ScreenFile> screen,
                         FindScreen(model, spec, limits, *source));
  RENGA_ASSIGN_OR_RETURN(ShardNeeds needs,
                         MeasureNeeds(model, spec, limits, *source, *backend, screen.get()));
  int64_t bytes = TotalBytes(model, spec, limits, needs);
  if (screen != nullptr) {
    RENGA_ASSIGN_OR_RETURN(const ShardNeeds whole,
                           MeasureNeeds(model, spec, limits, *source, *backend, nullptr));
    SayIfWholeHeadFits(bytes, TotalBytes(model, spec, limits, whole), *budget);
  }
  LazyLayers lazy;
  const int64_t available = budget->total_bytes() - budget->used_bytes();
  // Other devices hold all of their layers at once.
  const bool streams = !backend->layout_name().empty();
  if (mode == LoadMode::kLazy && !streams && bytes > available) {
    return absl::UnimplementedError(
        absl::StrCat("the device ", backend->path_name(),
                     " cannot compute from matrices kept on disk, and its part of the model does "
                     "not fit into what is offered: start without --lazy"));
  }
  if (mode == LoadMode::kLazy && !spec.layers.empty() && streams) {
    RENGA_ASSIGN_OR_RETURN(lazy, PlanLazyLayers(model, spec, bytes, available, backend, source));
    bytes = lazy.reserve_bytes;
    needs.load_bytes += lazy.UnpackedBytes() - lazy.load_bytes;
  }
  RENGA_ASSIGN_OR_RETURN(
      MemoryBudget::Reservation reservation,
      budget->Reserve(bytes, absl::StrCat("layers ", spec.layers.begin, " to ", spec.layers.end,
                                          " and head rows ", spec.head_rows.begin, " to ",
                                          spec.head_rows.end)));
  auto shard = std::make_unique<ShardImpl>(model, spec, limits, std::move(reservation));
  WeightLoader loader(backend, source, progress, needs.load_bytes);
  RENGA_RETURN_IF_ERROR(
      shard->LoadParts(model, backend, source, loader, std::move(lazy), std::move(screen)));
  if (mode == LoadMode::kLazy) shard->KeepRowsTogether();
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

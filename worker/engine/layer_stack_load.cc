// How layers come to be held: their program, their weights and their buffers.
#include <algorithm>
#include <utility>

#include "base/data_type.h"
#include "base/status_macros.h"
#include "model/footprint.h"
#include "model/linear_runs.h"
#include "worker/engine/layer_stack.h"

namespace renga::engine {
namespace {

using model::Op;

// Drops what works on nothing, in the slice of a member without heads or feed-forward columns. Its
// linear ops with empty inputs stay: their output is zero.
void DropEmptyOps(model::LayerProgram& program) {
  const auto is_empty = [&](int buffer) {
    return buffer >= 0 && program.buffer_widths[static_cast<size_t>(buffer)] == 0;
  };
  std::erase_if(program.ops, [&](const Op& op) {
    return is_empty(op.out) || (is_empty(op.in) && op.kind != OpKind::kLinear);
  });
}

// The calls that multiply by something: a member without heads has linear ops with empty inputs.
std::vector<model::LinearCall> CallsWithMatrices(const model::LayerProgram& program) {
  std::vector<model::LinearCall> calls = model::LinearCalls(program);
  std::erase_if(calls, [&](const model::LinearCall& call) {
    return program.buffer_widths[static_cast<size_t>(program.ops[call.first].in)] == 0;
  });
  return calls;
}

}  // namespace

LayerStack::LayerStack(const model::Model& model, const model::ShardSpec& spec,
                       const model::RuntimeLimits& limits, kernels::Backend* backend)
    : whole_(model),
      slice_(spec.slice),
      config_(slice_.has_value() ? model::SlicedConfig(model.config, *slice_) : model.config),
      first_layer_(spec.layers.begin),
      limits_(limits),
      backend_(backend) {}

absl::Status LayerStack::MakeProgram(const model::Model& model) {
  if (limits_.approximation.cold_neurons != nullptr && lazy_.residency != nullptr) {
    return absl::UnimplementedError("cold neurons with fewer bits do not go with --lazy");
  }
  if (limits_.approximation.late_percent > 0) {
    if (slice_.has_value() || lazy_.residency != nullptr) {
      return absl::UnimplementedError(
          "a late slice of layers goes neither with tensor-parallel groups nor with --lazy");
    }
    RENGA_ASSIGN_OR_RETURN(late_,
                           model::MakeLateProgram(model, limits_.approximation.late_percent));
    program_ = late_->program;
  } else {
    program_ = model.architecture->Program(config_);
  }
  DropEmptyOps(program_);
  RENGA_RETURN_IF_ERROR(FindOptionalOps());
  if (limits_.approximation.cold_neurons != nullptr) {
    const auto tensors = whole_.architecture->LayerTensors(whole_.config, first_layer_);
    const auto down = std::find_if(tensors.begin(), tensors.end(), [](const auto& tensor) {
      return tensor.cut == model::Cut::kFeedForwardColumns;
    });
    down_ = down == tensors.end() ? -1 : static_cast<int>(down - tensors.begin());
  }
  call_of_op_.resize(program_.ops.size());
  for (const model::LinearCall& call : CallsWithMatrices(program_)) {
    call_of_op_[call.first] = calls_per_layer_++;
  }
  // With or without experts: lazy_.layers is of this shard.
  bundles_per_layer_ = lazy_.residency == nullptr
                           ? 0
                           : lazy_.residency->bundle_count() / static_cast<size_t>(lazy_.layers);
  return absl::OkStatus();
}

absl::Status LayerStack::FindOptionalOps() {
  const model::Approximation& approximation = limits_.approximation;
  if (approximation.leaves_out_parts() && lazy_.residency != nullptr) {
    return absl::UnimplementedError("layers that are left out do not go with --lazy");
  }
  if (approximation.deadline_ms == 0 && approximation.missing_percent == 0) return absl::OkStatus();
  if (slice_.has_value()) {
    return absl::UnimplementedError(
        "feed-forwards are left out of whole layers only: a deadline does not go with "
        "tensor-parallel groups");
  }
  RENGA_ASSIGN_OR_RETURN(optional_, model::FindFeedForward(program_));
  if (approximation.missing_percent > 0) program_.ops.back().rows = model::OpRows::kPresent;
  return absl::OkStatus();
}

absl::StatusOr<std::vector<Bundle>> LayerStack::Bundles(const model::Model& model,
                                                        const model::ShardSpec& spec,
                                                        const kernels::Backend& backend,
                                                        WeightSource& source) {
  const model::LayerSlice slice = spec.slice.value_or(model::WholeLayer(model.config));
  model::LayerProgram program = model.architecture->Program(
      spec.slice.has_value() ? model::SlicedConfig(model.config, slice) : model.config);
  DropEmptyOps(program);
  const std::vector<model::LinearCall> calls = CallsWithMatrices(program);
  std::vector<Bundle> bundles;
  for (int64_t layer = spec.layers.begin; layer < spec.layers.end; ++layer) {
    const auto tensors = model.architecture->LayerTensors(model.config, layer);
    const auto add = [&](const model::TensorSpec& tensor, const model::TensorPart& part) {
      const auto type = source.TensorType(tensor.name);
      if (!type.ok()) return type.status();
      bundles.back().matrices.push_back(
          {.tensor = tensor,
           .part = part,
           .key =
               {.tensor = tensor.name, .type = *type, .rows = part.rows, .columns = part.columns},
           .bytes = backend.MatrixBytes(*type, part.rows.size(), part.columns.size())});
      return absl::OkStatus();
    };
    for (const model::LinearCall& call : calls) {
      bundles.emplace_back();
      for (const Op& op : std::span(program.ops).subspan(call.first, call.count)) {
        const model::TensorSpec& tensor = tensors[static_cast<size_t>(op.weight)];
        RENGA_RETURN_IF_ERROR(add(tensor, model::PartOf(tensor, model.config, slice)));
      }
    }
    for (int64_t expert = 0; expert < model.config.n_experts; ++expert) {
      bundles.emplace_back().is_expert = true;
      for (const int index : {program.experts.gate, program.experts.up, program.experts.down}) {
        const model::TensorSpec& tensor = tensors[static_cast<size_t>(index)];
        RENGA_RETURN_IF_ERROR(add(tensor, model::ExpertPart(tensor, expert)));
      }
    }
  }
  return bundles;
}

absl::StatusOr<std::unique_ptr<LayerStack>> LayerStack::Load(
    const model::Model& model, const model::ShardSpec& spec, const model::RuntimeLimits& limits,
    kernels::Backend* backend, WeightLoader& loader, LazyLayers lazy) {
  std::unique_ptr<LayerStack> stack(new LayerStack(model, spec, limits, backend));
  stack->lazy_ = std::move(lazy);
  RENGA_RETURN_IF_ERROR(stack->MakeProgram(model));
  if (model.config.rope_has_factors) {
    const model::TensorSpec factors = model::RopeFactorsTensor(model.config);
    RENGA_ASSIGN_OR_RETURN(stack->rope_factors_,
                           loader.LoadVector(factors, model::WholeTensor(factors)));
  }
  for (int64_t index = spec.layers.begin; index < spec.layers.end; ++index) {
    RENGA_ASSIGN_OR_RETURN(Layer layer, stack->LoadLayer(index, loader));
    stack->layers_.push_back(std::move(layer));
  }
  RENGA_RETURN_IF_ERROR(stack->AllocateBuffers());
  return stack;
}

absl::StatusOr<LayerStack::Layer> LayerStack::LoadLayer(int64_t index, WeightLoader& loader) const {
  const std::vector<model::TensorSpec> tensors =
      whole_.architecture->LayerTensors(whole_.config, index);
  model::LayerSlice slice = slice_.value_or(model::WholeLayer(whole_.config));
  if (late_.has_value()) slice.ff = late_->early;
  Layer layer;
  layer.matrices.resize(tensors.size());
  layer.vectors.resize(tensors.size());
  layer.cold.resize(tensors.size());
  if (const auto& cold = limits_.approximation.cold_neurons; cold != nullptr) {
    layer.order = OrderNeurons(*cold, index * whole_.config.d_ff, slice.ff);
  }
  RENGA_ASSIGN_OR_RETURN(layer.ops, model::OpsOfLayer(program_, limits_.approximation, index));
  for (size_t i = 0; i < tensors.size(); ++i) {
    const model::TensorPart part = model::PartOf(tensors[i], whole_.config, slice);
    if (part.rows.empty() || part.columns.empty()) continue;
    if (!tensors[i].must_be_f32 && !model::ReadsTensor(program_, layer.ops, i)) continue;
    if (tensors[i].experts > 0) continue;
    if (!layer.order.neurons.empty() && tensors[i].cut == model::Cut::kFeedForward) {
      RENGA_ASSIGN_OR_RETURN(MatrixByHeat matrix,
                             LoadByHeat(tensors[i], part.rows, layer.order, loader));
      layer.matrices[i] = std::move(matrix.hot);
      layer.cold[i] = std::move(matrix.cold);
    } else if (tensors[i].must_be_f32) {
      RENGA_ASSIGN_OR_RETURN(layer.vectors[i], loader.LoadVector(tensors[i], part));
    } else if (lazy_.residency == nullptr) {
      RENGA_ASSIGN_OR_RETURN(layer.matrices[i], loader.LoadMatrix(tensors[i], part));
    }
  }
  if (config_.has_experts() && lazy_.residency == nullptr) {
    RENGA_RETURN_IF_ERROR(LoadExperts(tensors, loader, layer));
  }
  if (late_.has_value()) RENGA_RETURN_IF_ERROR(LoadLatePart(tensors, loader, layer));
  layer.cold.resize(layer.matrices.size());
  return layer;
}

absl::Status LayerStack::LoadExperts(std::span<const model::TensorSpec> tensors,
                                     WeightLoader& loader, Layer& layer) const {
  const model::ExpertTensors& which = program_.experts;
  if (!model::ReadsTensor(program_, layer.ops, static_cast<size_t>(which.gate))) {
    return absl::OkStatus();  // a layer without its feed-forward
  }
  layer.experts.resize(static_cast<size_t>(config_.n_experts));
  // Tensor after tensor, as they lie in the file.
  const auto load = [&](int tensor, std::unique_ptr<kernels::WeightMatrix> Expert::*matrix) {
    const model::TensorSpec& spec = tensors[static_cast<size_t>(tensor)];
    for (int64_t i = 0; i < config_.n_experts; ++i) {
      auto loaded = loader.LoadMatrix(spec, model::ExpertPart(spec, i));
      if (!loaded.ok()) return loaded.status();
      layer.experts[static_cast<size_t>(i)].*matrix = *std::move(loaded);
    }
    return absl::OkStatus();
  };
  RENGA_RETURN_IF_ERROR(load(which.gate, &Expert::gate));
  RENGA_RETURN_IF_ERROR(load(which.up, &Expert::up));
  return load(which.down, &Expert::down);
}

absl::Status LayerStack::LoadLatePart(std::span<const model::TensorSpec> tensors,
                                      WeightLoader& loader, Layer& layer) const {
  model::LayerSlice slice = model::WholeLayer(whole_.config);
  slice.ff = late_->late;
  for (const model::LateProgram::Part& added : late_->added) {
    const model::TensorSpec& tensor = tensors[static_cast<size_t>(added.tensor)];
    auto& matrix = layer.matrices.emplace_back();
    auto& vector = layer.vectors.emplace_back();
    const model::TensorPart part = model::PartOf(tensor, whole_.config, slice);
    if (!tensor.must_be_f32) {
      RENGA_ASSIGN_OR_RETURN(matrix, loader.LoadMatrix(tensor, part));
      continue;
    }
    RENGA_ASSIGN_OR_RETURN(vector, loader.LoadVector(tensor, part));
    if (!added.negated) continue;
    std::vector<float> numbers(static_cast<size_t>(part.columns.size()));
    const std::span<std::byte> bytes = std::as_writable_bytes(std::span(numbers));
    RENGA_RETURN_IF_ERROR(backend_->Synchronize());
    RENGA_RETURN_IF_ERROR(backend_->Download(*vector, 0, bytes));
    for (float& number : numbers) number = -number;
    RENGA_RETURN_IF_ERROR(backend_->Upload(bytes, *vector, 0));
    RENGA_RETURN_IF_ERROR(backend_->Synchronize());
  }
  return absl::OkStatus();
}

absl::Status LayerStack::AllocateBuffers() {
  // In one bundle: the system says once whether it has that much.
  layer_kv_bytes_ = limits_.kv_blocks * model::KvBlockBytesPerLayer(config_, limits_.kv_type);
  RENGA_ASSIGN_OR_RETURN(
      kv_, backend_->Allocate(layer_kv_bytes_ * static_cast<int64_t>(layers_.size())));
  int64_t bytes = 0;
  for (const int64_t width : program_.buffer_widths) {
    activation_offsets_.push_back(bytes);
    bytes += width * limits_.max_step_tokens * static_cast<int64_t>(sizeof(float));
  }
  RENGA_ASSIGN_OR_RETURN(activations_, backend_->Allocate(bytes));
  return absl::OkStatus();
}

}  // namespace renga::engine

#include "worker/engine/layer_stack.h"

#include <cmath>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "model/footprint.h"
#include "model/step.h"

namespace renga::engine {
namespace {

using kernels::KvCacheView;
using kernels::RowsView;
using model::Op;
using model::OpKind;

const float* Floats(const std::unique_ptr<kernels::Buffer>& buffer) {
  return buffer == nullptr ? nullptr : reinterpret_cast<const float*>(buffer->data());
}

// How many ops from `ops[0]` on, all kLinear, read one input and may run as one call: none of them
// writes what they read.
size_t LinearRun(std::span<const Op> ops) {
  size_t count = 0;
  while (count < ops.size() && ops[count].kind == OpKind::kLinear && ops[count].in == ops[0].in &&
         ops[count].out != ops[0].in) {
    ++count;
  }
  return count;
}

}  // namespace

// What is the same for every layer of one Run.
struct LayerStack::Call {
  int64_t rows = 0;
  std::span<const int64_t> positions;
  std::span<const kernels::SequenceSlot> slots;
};

LayerStack::LayerStack(const model::Model& model, const model::RuntimeLimits& limits,
                       kernels::Backend* backend)
    : model_(model),
      limits_(limits),
      program_(model.architecture->Program(model.config)),
      backend_(backend) {}

absl::StatusOr<std::unique_ptr<LayerStack>> LayerStack::Load(const model::Model& model,
                                                             const model::Range& layers,
                                                             const model::RuntimeLimits& limits,
                                                             kernels::Backend* backend,
                                                             WeightLoader& loader) {
  std::unique_ptr<LayerStack> stack(new LayerStack(model, limits, backend));
  if (model.config.rope_has_factors) {
    RENGA_ASSIGN_OR_RETURN(stack->rope_factors_,
                           loader.LoadVector(model::RopeFactorsTensor(model.config)));
  }
  for (int64_t index = layers.begin; index < layers.end; ++index) {
    RENGA_ASSIGN_OR_RETURN(Layer layer, stack->LoadLayer(index, loader));
    stack->layers_.push_back(std::move(layer));
  }
  RENGA_RETURN_IF_ERROR(stack->AllocateBuffers());
  return stack;
}

absl::StatusOr<LayerStack::Layer> LayerStack::LoadLayer(int64_t index, WeightLoader& loader) const {
  const std::vector<model::TensorSpec> tensors =
      model_.architecture->LayerTensors(model_.config, index);
  Layer layer;
  layer.matrices.resize(tensors.size());
  layer.vectors.resize(tensors.size());
  for (size_t i = 0; i < tensors.size(); ++i) {
    if (tensors[i].must_be_f32) {
      RENGA_ASSIGN_OR_RETURN(layer.vectors[i], loader.LoadVector(tensors[i]));
    } else {
      RENGA_ASSIGN_OR_RETURN(layer.matrices[i],
                             loader.LoadMatrix(tensors[i], {0, tensors[i].rows}));
    }
  }
  return layer;
}

absl::Status LayerStack::AllocateBuffers() {
  const int64_t kv_bytes =
      limits_.kv_blocks * model::KvBlockBytesPerLayer(model_.config, limits_.kv_type);
  for (Layer& layer : layers_) {
    RENGA_ASSIGN_OR_RETURN(layer.kv, backend_->Allocate(kv_bytes));
  }
  int64_t bytes = 0;
  for (const int64_t width : program_.buffer_widths) {
    activation_offsets_.push_back(bytes);
    bytes += width * limits_.max_step_tokens * static_cast<int64_t>(sizeof(float));
  }
  RENGA_ASSIGN_OR_RETURN(activations_, backend_->Allocate(bytes));
  return absl::OkStatus();
}

absl::Status LayerStack::Run(std::span<float> rows, std::span<const int64_t> positions,
                             std::span<const kernels::SequenceSlot> slots) {
  const Call call{
      .rows = static_cast<int64_t>(positions.size()), .positions = positions, .slots = slots};
  const std::span<std::byte> bytes = std::as_writable_bytes(rows);
  // Buffer 0 is the residual stream; its rows lie side by side.
  RENGA_RETURN_IF_ERROR(backend_->Upload(bytes, *activations_, activation_offsets_[0]));
  for (const Layer& layer : layers_) RENGA_RETURN_IF_ERROR(RunLayer(layer, call));
  RENGA_RETURN_IF_ERROR(backend_->Synchronize());
  return backend_->Download(*activations_, activation_offsets_[0], bytes);
}

absl::Status LayerStack::RunLayer(const Layer& layer, const Call& call) {
  const std::span<const Op> ops = program_.ops;
  for (size_t i = 0; i < ops.size();) {
    const size_t linears = LinearRun(ops.subspan(i));
    if (linears > 0) {
      RENGA_RETURN_IF_ERROR(RunLinears(layer, ops.subspan(i, linears), call));
      i += linears;
    } else {
      RENGA_RETURN_IF_ERROR(RunOp(layer, ops[i], call));
      ++i;
    }
  }
  return absl::OkStatus();
}

absl::Status LayerStack::RunOp(const Layer& layer, const Op& op, const Call& call) {
  const float epsilon = static_cast<float>(model_.config.norm_epsilon);
  switch (op.kind) {
    case OpKind::kRmsNorm:
      return backend_->RmsNorm(View(op.in, call), Floats(layer.vectors[op.weight]), epsilon,
                               View(op.out, call));
    case OpKind::kHeadRmsNorm:
      return backend_->HeadRmsNorm(View(op.in, call), model_.config.head_dim,
                                   Floats(layer.vectors[op.weight]), epsilon);
    case OpKind::kLinear:
      return RunLinears(layer, std::span(&op, 1), call);
    case OpKind::kRope:
      return RunRope(op, call);
    case OpKind::kAttention:
      return RunAttention(layer, op, call);
    case OpKind::kSiluGate:
      return backend_->SiluGate(View(op.in, call), View(op.in2, call), View(op.out, call));
    case OpKind::kAdd:
      return backend_->Add(View(op.in, call), View(op.out, call));
  }
  return absl::InternalError(absl::StrCat("unknown op ", static_cast<int>(op.kind)));
}

absl::Status LayerStack::RunLinears(const Layer& layer, std::span<const Op> ops, const Call& call) {
  std::vector<kernels::LinearOutput> outputs;
  outputs.reserve(ops.size());
  for (const Op& op : ops) {
    outputs.push_back({.matrix = layer.matrices[op.weight].get(),
                       .bias = op.bias < 0 ? nullptr : Floats(layer.vectors[op.bias]),
                       .out = View(op.out, call)});
  }
  return backend_->Linear(View(ops[0].in, call), outputs);
}

absl::Status LayerStack::RunRope(const Op& op, const Call& call) {
  const model::RopeConfig& rope = model_.config.rope;
  return backend_->Rope(View(op.in, call), call.positions,
                        {.neighbours = rope.style == model::RopeStyle::kNeighbours,
                         .head_dim = model_.config.head_dim,
                         .dims = rope.dims,
                         .base = rope.base,
                         .position_scale = rope.position_scale,
                         .factors = Floats(rope_factors_)});
}

absl::Status LayerStack::RunAttention(const Layer& layer, const Op& op, const Call& call) {
  const model::ModelConfig& config = model_.config;
  const KvCacheView cache{.keys = layer.kv->data(),
                          .values = layer.kv->data() + layer.kv->size_bytes() / 2,
                          .type = limits_.kv_type,
                          .n_blocks = limits_.kv_blocks,
                          .block_tokens = model::kKvBlockTokens,
                          .n_kv_heads = config.n_kv_heads,
                          .head_dim = config.head_dim};
  RENGA_RETURN_IF_ERROR(
      backend_->StoreKv(View(op.in2, call), View(op.in3, call), cache, call.slots));
  return backend_->Attention({.queries = View(op.in, call),
                              .out = View(op.out, call),
                              .cache = cache,
                              .n_heads = config.n_heads,
                              .scale = 1.0f / std::sqrt(static_cast<float>(config.head_dim)),
                              .slots = call.slots});
}

RowsView LayerStack::View(int buffer, const Call& call) const {
  const int64_t width = program_.buffer_widths[buffer];
  return {.data = reinterpret_cast<float*>(activations_->data() + activation_offsets_[buffer]),
          .rows = call.rows,
          .columns = width,
          .stride = width};
}

}  // namespace renga::engine

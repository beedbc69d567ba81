#include "model/footprint.h"

#include <algorithm>
#include <cmath>

#include "absl/strings/str_cat.h"
#include "base/kv_type.h"
#include "base/status_macros.h"
#include "model/feed_forward_ops.h"
#include "model/late_program.h"
#include "model/step.h"

namespace renga::model {
namespace {

// Sums of a few of these still fit int64.
constexpr int64_t kSaturated = int64_t{1} << 58;
constexpr int64_t kFixedScratchBytes = int64_t{4} << 20;
constexpr int64_t kGroupScratchBytes = int64_t{4} << 20;
constexpr int64_t kFloatBytes = 4;
// A backend may keep activations as int8 with a scale and a sum for each block: at most 2 bytes
// per number.
constexpr int64_t kQuantisedBytes = 2;

int64_t Multiply(int64_t a, int64_t b) {
  int64_t result = 0;
  const bool overflowed = __builtin_mul_overflow(a, b, &result);
  return overflowed || result > kSaturated ? kSaturated : result;
}

absl::StatusOr<const GgufTensor*> Find(const GgufFile& file, const TensorSpec& spec) {
  const GgufTensor* tensor = file.FindTensor(spec.name);
  if (tensor == nullptr) {
    return absl::NotFoundError(absl::StrCat("the model lacks the tensor ", spec.name));
  }
  return tensor;
}

absl::StatusOr<int64_t> BytesOf(const GgufFile& file, const TensorSpec& spec) {
  RENGA_ASSIGN_OR_RETURN(const GgufTensor* tensor, Find(file, spec));
  return tensor->byte_size;
}

// The model as a shard computes it.
ModelConfig ConfigOf(const Model& model, const ShardSpec& spec) {
  return spec.slice.has_value() ? SlicedConfig(model.config, *spec.slice) : model.config;
}

// One layer as a shard computes it.
LayerProgram ProgramOf(const Model& model, const ShardSpec& spec, const RuntimeLimits& limits) {
  if (limits.approximation.late_percent > 0) {
    // Where there is none, loading says so.
    auto late = MakeLateProgram(model, limits.approximation.late_percent);
    if (late.ok()) return std::move(late->program);
  }
  return model.architecture->Program(ConfigOf(model, spec));
}

// Inputs of the widest linear op that the shard computes.
int64_t WidestInput(const Model& model, const LayerProgram& program, const ShardSpec& spec) {
  int64_t widest = spec.head_rows.empty() ? 0 : model.config.d_model;
  if (spec.layers.empty()) return widest;
  for (const Op& op : program.ops) {
    if (op.kind != OpKind::kLinear && op.kind != OpKind::kExperts) continue;
    widest = std::max(widest, program.buffer_widths[static_cast<size_t>(op.in)]);
    // What an expert's gate has let through is the input of its last matrix.
    if (op.kind == OpKind::kExperts) widest = std::max(widest, model.config.d_ff);
  }
  return widest;
}

}  // namespace

absl::StatusOr<ModelFootprint> MeasureModel(const GgufFile& file, const Model& model) {
  const ModelConfig& config = model.config;
  ModelFootprint footprint;
  for (int64_t layer = 0; layer < config.n_layers; ++layer) {
    LayerWeightBytes& bytes = footprint.layers.emplace_back();
    for (const TensorSpec& spec : model.architecture->LayerTensors(config, layer)) {
      RENGA_ASSIGN_OR_RETURN(const GgufTensor* tensor, Find(file, spec));
      AddTensor(spec, tensor->byte_size, bytes);
      footprint.layer_bytes_of[tensor->type] += BytesReadPerToken(spec, tensor->byte_size, config);
      Widen(spec, tensor->type, config, footprint.slice_units);
    }
  }
  RENGA_ASSIGN_OR_RETURN(const GgufTensor* head, Find(file, OutputTensor(config)));
  footprint.head_row_bytes = head->byte_size / config.vocab_size;
  footprint.head_type = head->type;
  RENGA_ASSIGN_OR_RETURN(footprint.embedding_bytes, BytesOf(file, EmbeddingTensor(config)));
  RENGA_ASSIGN_OR_RETURN(footprint.shared_bytes, BytesOf(file, OutputNormTensor(config)));
  if (config.rope_has_factors) {
    RENGA_ASSIGN_OR_RETURN(const int64_t bytes, BytesOf(file, RopeFactorsTensor(config)));
    footprint.shared_bytes += bytes;
  }
  return footprint;
}

namespace {

// How many of a layer's neurons are cold.
int64_t ColdNeuronsOf(const Approximation& approximation, const ModelConfig& config,
                      int64_t layer) {
  if (approximation.cold_neurons == nullptr) return 0;
  const NeuronSet& cold = *approximation.cold_neurons;
  return std::lower_bound(cold.begin(), cold.end(), (layer + 1) * config.d_ff) -
         std::lower_bound(cold.begin(), cold.end(), layer * config.d_ff);
}

}  // namespace

absl::StatusOr<LayerWeightBytes> MeasureLayer(const Model& model, int64_t layer, TypeOf type_of,
                                              const Approximation& approximation) {
  const LayerProgram program = model.architecture->Program(model.config);
  RENGA_ASSIGN_OR_RETURN(const OpRange ops, OpsOfLayer(program, approximation, layer));
  const int64_t cold = ColdNeuronsOf(approximation, model.config, layer);
  const std::vector<TensorSpec> tensors = model.architecture->LayerTensors(model.config, layer);
  LayerWeightBytes bytes;
  for (size_t i = 0; i < tensors.size(); ++i) {
    const TensorSpec& tensor = tensors[i];
    if (!tensor.must_be_f32 && !ReadsTensor(program, ops, i)) continue;
    RENGA_ASSIGN_OR_RETURN(const base::DataType type, type_of(tensor));
    RENGA_ASSIGN_OR_RETURN(const int64_t row_bytes, base::RowBytes(type, tensor.columns));
    AddTensor(tensor, tensor.rows * row_bytes, bytes);
    if (cold == 0 || tensor.cut != Cut::kFeedForward || tensor.must_be_f32) continue;
    // Where three bits do not fit, loading says so.
    const auto few_bits = base::RowBytes(base::DataType::kR3, tensor.columns);
    if (few_bits.ok()) bytes.saved += cold * std::max<int64_t>(0, row_bytes - *few_bits);
  }
  return bytes;
}

absl::Status CountApproximation(const GgufFile& file, const Model& model,
                                const Approximation& approximation, ModelFootprint& footprint) {
  const auto type_of = [&](const TensorSpec& spec) -> absl::StatusOr<base::DataType> {
    RENGA_ASSIGN_OR_RETURN(const GgufTensor* tensor, Find(file, spec));
    return tensor->type;
  };
  for (int64_t layer = 0; layer < model.config.n_layers; ++layer) {
    RENGA_ASSIGN_OR_RETURN(footprint.layers[static_cast<size_t>(layer)],
                           MeasureLayer(model, layer, type_of, approximation));
  }
  return absl::OkStatus();
}

int64_t BytesReadPerToken(const TensorSpec& tensor, int64_t bytes, const ModelConfig& config) {
  if (tensor.cut != Cut::kExperts) return bytes;
  return bytes / config.n_experts * config.n_experts_used;
}

double ShareOfExpertsRead(const ModelConfig& config, int64_t rows) {
  return 1 - std::pow(1 - config.ExpertShare(), static_cast<double>(rows));
}

void AddTensor(const TensorSpec& tensor, int64_t bytes, LayerWeightBytes& layer) {
  switch (tensor.cut) {
    case Cut::kNone:
    case Cut::kVocabulary:
      layer.uncut += bytes;
      break;
    case Cut::kQueryHeads:
    case Cut::kHeadColumns:
      layer.query_heads += bytes;
      break;
    case Cut::kKvHeads:
      layer.kv_heads += bytes;
      break;
    case Cut::kFeedForward:
    case Cut::kFeedForwardColumns:
      layer.feed_forward += bytes;
      break;
    case Cut::kExperts:
      layer.experts += bytes;
      break;
  }
}

int64_t SliceBytes(const LayerWeightBytes& layer, const ModelConfig& config,
                   const LayerSlice& slice) {
  const auto share = [](int64_t bytes, const Range& part, int64_t whole) {
    return bytes / whole * part.size() + bytes % whole * part.size() / whole;
  };
  return layer.uncut + share(layer.query_heads, slice.heads, config.n_heads) +
         share(layer.kv_heads, KvHeadsOf(config, slice.heads), config.n_kv_heads) +
         share(layer.feed_forward + layer.experts, slice.ff, config.d_ff);
}

int64_t KvBlockBytesPerLayer(const ModelConfig& config, base::DataType kv_type) {
  return 2 * kKvBlockTokens * config.n_kv_heads * base::KvHeadBytes(kv_type, config.head_dim);
}

ScratchParts MeasureScratch(const Model& model, const ShardSpec& spec,
                            const RuntimeLimits& limits) {
  ScratchParts parts;
  if (spec.empty()) return parts;
  const LayerProgram program = ProgramOf(model, spec, limits);
  const int64_t d_model = model.config.d_model;
  if (!spec.layers.empty()) {
    int64_t row_width = 0;
    for (const int64_t width : program.buffer_widths) row_width += width;
    parts.activations = Multiply(limits.max_step_tokens, row_width * kFloatBytes);
    if (spec.slice.has_value()) {
      parts.group = Multiply(limits.max_step_tokens, d_model * kFloatBytes) + kGroupScratchBytes;
    }
  }
  parts.quantised =
      Multiply(limits.max_step_tokens, WidestInput(model, program, spec) * kQuantisedBytes);
  if (!spec.head_rows.empty()) {
    parts.head = Multiply(limits.max_step_outputs, (spec.head_rows.size() + d_model) * kFloatBytes);
  }
  parts.staging = Multiply(limits.max_step_tokens, d_model * kFloatBytes);
  parts.fixed = kFixedScratchBytes;
  return parts;
}

int64_t ScratchBytes(const Model& model, const ShardSpec& spec, const RuntimeLimits& limits) {
  return std::min(MeasureScratch(model, spec, limits).total(), kSaturated);
}

ShardBytes MeasureShard(const Model& model, const ModelFootprint& footprint, const ShardSpec& spec,
                        const RuntimeLimits& limits) {
  ShardBytes bytes;
  for (int64_t layer = spec.layers.begin; layer < spec.layers.end; ++layer) {
    const LayerWeightBytes& whole = footprint.layers[static_cast<size_t>(layer)];
    bytes.weights +=
        spec.slice.has_value() ? SliceBytes(whole, model.config, *spec.slice) : whole.total();
  }
  if (!spec.head_rows.empty()) bytes.weights += spec.head_rows.size() * footprint.head_row_bytes;
  if (spec.empty()) return bytes;
  if (spec.embedding) bytes.weights += footprint.embedding_bytes;
  bytes.weights += footprint.shared_bytes;
  if (!spec.layers.empty()) {
    bytes.kv = Multiply(Multiply(limits.kv_blocks, spec.layers.size()),
                        KvBlockBytesPerLayer(ConfigOf(model, spec), limits.kv_type));
  }
  bytes.scratch = ScratchBytes(model, spec, limits);
  return bytes;
}

}  // namespace renga::model

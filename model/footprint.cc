#include "model/footprint.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "base/kv_type.h"
#include "base/status_macros.h"
#include "model/step.h"

namespace renga::model {
namespace {

// Sums of a few of these still fit int64.
constexpr int64_t kSaturated = int64_t{1} << 58;
constexpr int64_t kFixedScratchBytes = int64_t{4} << 20;
constexpr int64_t kFloatBytes = 4;
// A backend may keep activations as int8 with a scale and a sum for each block: at most 2 bytes
// per number.
constexpr int64_t kQuantisedBytes = 2;

int64_t Multiply(int64_t a, int64_t b) {
  int64_t result = 0;
  const bool overflowed = __builtin_mul_overflow(a, b, &result);
  return overflowed || result > kSaturated ? kSaturated : result;
}

absl::StatusOr<int64_t> BytesOf(const GgufFile& file, const TensorSpec& spec) {
  const GgufTensor* tensor = file.FindTensor(spec.name);
  if (tensor == nullptr) {
    return absl::NotFoundError(absl::StrCat("the model lacks the tensor ", spec.name));
  }
  return tensor->byte_size;
}

// Inputs of the widest linear op that the shard computes.
int64_t WidestInput(const Model& model, const LayerProgram& program, const ShardSpec& spec) {
  int64_t widest = spec.head_rows.empty() ? 0 : model.config.d_model;
  if (spec.layers.empty()) return widest;
  for (const Op& op : program.ops) {
    if (op.kind != OpKind::kLinear) continue;
    widest = std::max(widest, program.buffer_widths[static_cast<size_t>(op.in)]);
  }
  return widest;
}

}  // namespace

absl::StatusOr<ModelFootprint> MeasureModel(const GgufFile& file, const Model& model) {
  const ModelConfig& config = model.config;
  ModelFootprint footprint;
  for (int64_t layer = 0; layer < config.n_layers; ++layer) {
    int64_t layer_bytes = 0;
    for (const TensorSpec& spec : model.architecture->LayerTensors(config, layer)) {
      RENGA_ASSIGN_OR_RETURN(const int64_t bytes, BytesOf(file, spec));
      layer_bytes += bytes;
    }
    footprint.layer_weight_bytes.push_back(layer_bytes);
  }
  RENGA_ASSIGN_OR_RETURN(const int64_t head_bytes, BytesOf(file, OutputTensor(config)));
  footprint.head_row_bytes = head_bytes / config.vocab_size;
  RENGA_ASSIGN_OR_RETURN(footprint.embedding_bytes, BytesOf(file, EmbeddingTensor(config)));
  RENGA_ASSIGN_OR_RETURN(footprint.shared_bytes, BytesOf(file, OutputNormTensor(config)));
  if (config.rope_has_factors) {
    RENGA_ASSIGN_OR_RETURN(const int64_t bytes, BytesOf(file, RopeFactorsTensor(config)));
    footprint.shared_bytes += bytes;
  }
  return footprint;
}

int64_t KvBlockBytesPerLayer(const ModelConfig& config, base::DataType kv_type) {
  return 2 * kKvBlockTokens * config.n_kv_heads * base::KvHeadBytes(kv_type, config.head_dim);
}

ScratchParts MeasureScratch(const Model& model, const ShardSpec& spec,
                            const RuntimeLimits& limits) {
  ScratchParts parts;
  if (spec.layers.empty() && spec.head_rows.empty()) return parts;
  const LayerProgram program = model.architecture->Program(model.config);
  const int64_t d_model = model.config.d_model;
  if (!spec.layers.empty()) {
    int64_t row_width = 0;
    for (const int64_t width : program.buffer_widths) row_width += width;
    parts.activations = Multiply(limits.max_step_tokens, row_width * kFloatBytes);
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
    bytes.weights += footprint.layer_weight_bytes[static_cast<size_t>(layer)];
  }
  if (!spec.head_rows.empty()) bytes.weights += spec.head_rows.size() * footprint.head_row_bytes;
  if (spec.layers.empty() && spec.head_rows.empty()) return bytes;
  bytes.weights += footprint.shared_bytes;
  if (!spec.layers.empty()) {
    bytes.kv = Multiply(Multiply(limits.kv_blocks, spec.layers.size()),
                        KvBlockBytesPerLayer(model.config, limits.kv_type));
  }
  bytes.scratch = ScratchBytes(model, spec, limits);
  return bytes;
}

}  // namespace renga::model

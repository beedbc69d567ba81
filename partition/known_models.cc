#include "partition/known_models.h"

#include <cstdint>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "base/data_type.h"
#include "base/status_macros.h"
#include "model/layer_slice.h"

namespace renga::partition {
namespace {

using base::DataType;

struct Shape {
  const char* name;
  int64_t n_layers;
  int64_t d_model;
  int64_t n_heads;
  int64_t n_kv_heads;
  int64_t d_ff;
  int64_t vocab_size;
  int64_t context_length;
  // Of mixtures of experts; d_ff is one's width.
  int64_t n_experts = 0;
  int64_t n_experts_used = 0;
  const char* architecture = "llama";
  int64_t head_dim = 0;  // 0: d_model / n_heads
};

// From the models' published config.json (Meta's Llama 2 and Llama 3, TinyLlama 1.1B, Mixtral 8x7B,
// Qwen3 30B A3B).
constexpr Shape kShapes[] = {
    {"tinyllama-1.1b", 22, 2048, 32, 4, 5632, 32000, 2048},
    {"llama-2-7b", 32, 4096, 32, 32, 11008, 32000, 4096},
    {"llama-2-13b", 40, 5120, 40, 40, 13824, 32000, 4096},
    {"llama-2-70b", 80, 8192, 64, 8, 28672, 32000, 4096},
    {"llama-3-8b", 32, 4096, 32, 8, 14336, 128256, 8192},
    {"llama-3-70b", 80, 8192, 64, 8, 28672, 128256, 8192},
    {"mixtral-8x7b", 32, 4096, 32, 8, 14336, 32000, 32768, 8, 2},
    {"qwen3-30b-a3b", 48, 2048, 32, 4, 768, 151936, 40960, 128, 8, "qwen3moe", 128},
};

// How llama.cpp's llama-quantize mixes formats under the name Q4_K_M: values and feed-forward down
// get more bits in the first and last eighth of the layers and in every third between; models of
// 70B keep their (small) values in Q5_K at least.
DataType MixedType(const Shape& shape, const model::TensorSpec& tensor, int64_t layer) {
  const bool is_value = absl::StrContains(tensor.name, "attn_v.");
  const bool is_down = absl::StrContains(tensor.name, "ffn_down");
  const int64_t eighth = shape.n_layers / 8;
  const bool more_bits =
      layer < eighth || layer >= 7 * shape.n_layers / 8 || (layer - eighth) % 3 == 2;
  if ((is_value || is_down) && more_bits) return DataType::kQ6_K;
  return is_value && shape.n_layers == 80 ? DataType::kQ5_K : DataType::kQ4_K;
}

struct Format {
  bool mixed = false;  // Q4_K_M
  DataType type = DataType::kInvalid;
};

absl::StatusOr<Format> ParseFormat(absl::string_view name) {
  if (absl::EqualsIgnoreCase(name, "Q4_K_M")) return Format{.mixed = true};
  const std::optional<DataType> type = base::DataTypeFromName(name);
  if (!type.has_value()) {
    return absl::InvalidArgumentError(
        absl::StrCat("'", name, "' is no format of weights: write Q4_K_M, Q4_0, Q8_0, F16 ..."));
  }
  return Format{.type = *type};
}

absl::StatusOr<int64_t> BytesOf(const model::TensorSpec& tensor, DataType type) {
  RENGA_ASSIGN_OR_RETURN(const int64_t row, base::RowBytes(type, tensor.columns));
  return row * tensor.rows;
}

absl::StatusOr<KnownModel> Build(const Shape& shape, const Format& format) {
  KnownModel known;
  RENGA_ASSIGN_OR_RETURN(known.model.architecture, model::FindArchitecture(shape.architecture));
  model::ModelConfig& config = known.model.config;
  config.architecture = shape.architecture;
  config.name = shape.name;
  config.n_layers = shape.n_layers;
  config.d_model = shape.d_model;
  config.n_heads = shape.n_heads;
  config.n_kv_heads = shape.n_kv_heads;
  config.head_dim = shape.head_dim > 0 ? shape.head_dim : shape.d_model / shape.n_heads;
  config.d_ff = shape.d_ff;
  config.n_experts = shape.n_experts;
  config.n_experts_used = shape.n_experts_used;
  config.vocab_size = shape.vocab_size;
  config.context_length = shape.context_length;
  config.norm_epsilon = 1e-5;
  config.rope.dims = config.head_dim;

  model::ModelFootprint& footprint = known.footprint;
  for (int64_t layer = 0; layer < shape.n_layers; ++layer) {
    model::LayerWeightBytes& bytes = footprint.layers.emplace_back();
    for (const auto& tensor : known.model.architecture->LayerTensors(config, layer)) {
      // Quantisers leave routers as they are.
      const bool is_router = absl::StrContains(tensor.name, "ffn_gate_inp");
      const DataType type = tensor.must_be_f32 || is_router ? DataType::kF32
                            : format.mixed                  ? MixedType(shape, tensor, layer)
                                                            : format.type;
      RENGA_ASSIGN_OR_RETURN(const int64_t size, BytesOf(tensor, type));
      model::AddTensor(tensor, size, bytes);
      model::Widen(tensor, type, config, footprint.slice_units);
      footprint.layer_bytes_of[type] += model::BytesReadPerToken(tensor, size, config);
    }
  }
  footprint.head_type = format.mixed ? DataType::kQ6_K : format.type;
  const DataType embedding = format.mixed ? DataType::kQ4_K : format.type;
  RENGA_ASSIGN_OR_RETURN(footprint.head_row_bytes,
                         base::RowBytes(footprint.head_type, shape.d_model));
  RENGA_ASSIGN_OR_RETURN(footprint.embedding_bytes,
                         BytesOf(model::EmbeddingTensor(config), embedding));
  RENGA_ASSIGN_OR_RETURN(footprint.shared_bytes,
                         BytesOf(model::OutputNormTensor(config), DataType::kF32));
  return known;
}

}  // namespace

std::vector<std::string> KnownModelNames() {
  std::vector<std::string> names;
  for (const Shape& shape : kShapes) names.emplace_back(shape.name);
  return names;
}

absl::StatusOr<KnownModel> FindKnownModel(absl::string_view name) {
  const std::pair<absl::string_view, absl::string_view> parts =
      absl::StrSplit(name, absl::MaxSplits(':', 1));
  for (const Shape& shape : kShapes) {
    if (!absl::EqualsIgnoreCase(parts.first, shape.name)) continue;
    RENGA_ASSIGN_OR_RETURN(const Format format,
                           ParseFormat(parts.second.empty() ? "Q4_K_M" : parts.second));
    return Build(shape, format);
  }
  return absl::NotFoundError(absl::StrCat("'", name, "' is neither a GGUF file nor a known model (",
                                          absl::StrJoin(KnownModelNames(), ", "), ")"));
}

}  // namespace renga::partition

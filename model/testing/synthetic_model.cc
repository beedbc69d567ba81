#include "model/testing/synthetic_model.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <numeric>
#include <span>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "base/content_hash.h"
#include "base/status_macros.h"
#include "model/architecture.h"
#include "model/testing/random_blocks.h"
#include "model/testing/synthetic_vocabulary.h"

namespace renga::model {
namespace {

using base::DataType;

constexpr int64_t kPieceBytes = 1 << 20;
constexpr double kNormEpsilon = 1e-5;
constexpr double kMaxRouterSkew = 8;
// Large beside what a layer adds, so that the residual stream still tells tokens apart at the end.
constexpr float kEmbeddingDeviation = 0.5f;

// The llama_ftype that quantisers write into general.file_type; only a label.
uint64_t FileType(DataType type) {
  switch (type) {
    case DataType::kInvalid:
    case DataType::kF32:
    case DataType::kR3:
      return 0;
    case DataType::kF16:
      return 1;
    case DataType::kQ4_0:
      return 2;
    case DataType::kQ4_1:
      return 3;
    case DataType::kQ8_0:
      return 7;
    case DataType::kQ5_0:
      return 8;
    case DataType::kQ5_1:
      return 9;
    case DataType::kQ2_K:
      return 10;
    case DataType::kQ3_K:
      return 12;
    case DataType::kQ4_K:
      return 15;
    case DataType::kQ5_K:
      return 17;
    case DataType::kQ6_K:
      return 18;
    case DataType::kIQ4_NL:
      return 25;
    case DataType::kIQ4_XS:
      return 30;
    case DataType::kBF16:
      return 32;
  }
  return 0;
}

absl::Status CheckOptions(const SyntheticModelOptions& options) {
  const int64_t smallest = std::min({options.n_layers, options.d_model, options.n_heads,
                                     options.n_kv_heads, options.d_ff, options.context_length});
  if (smallest < 1) return absl::InvalidArgumentError("every size of a model must be at least 1");
  if (options.vocab_size < kMinSyntheticVocabulary) {
    return absl::InvalidArgumentError(absl::StrCat("the vocabulary must have at least ",
                                                   kMinSyntheticVocabulary, " tokens, not ",
                                                   options.vocab_size));
  }
  if (options.head_dim == 0 && options.d_model % options.n_heads != 0) {
    return absl::InvalidArgumentError(absl::StrCat(
        "a width of ", options.d_model, " cannot be divided into ", options.n_heads, " heads"));
  }
  if (options.n_experts_used < (options.n_experts > 0 ? 1 : 0) ||
      options.n_experts_used > options.n_experts) {
    return absl::InvalidArgumentError(absl::StrCat("of ", options.n_experts, " experts ",
                                                   options.n_experts_used, " cannot be used"));
  }
  if (!(options.router_skew >= 0 && options.router_skew <= kMaxRouterSkew)) {
    return absl::InvalidArgumentError(
        absl::StrCat("routers can have a skew of 0 to ", kMaxRouterSkew));
  }
  return absl::OkStatus();
}

ModelConfig ConfigOf(const SyntheticModelOptions& options) {
  ModelConfig config;
  config.architecture = options.architecture;
  config.n_layers = options.n_layers;
  config.d_model = options.d_model;
  config.n_heads = options.n_heads;
  config.n_kv_heads = options.n_kv_heads;
  config.head_dim = options.head_dim > 0 ? options.head_dim : options.d_model / options.n_heads;
  config.d_ff = options.d_ff;
  config.n_experts = options.n_experts;
  config.n_experts_used = options.n_experts_used;
  config.vocab_size = options.vocab_size;
  config.context_length = options.context_length;
  config.norm_epsilon = kNormEpsilon;
  config.rope.dims = config.head_dim;
  config.rope_has_factors = options.rope_factors;
  config.tied_output = options.tied_output;
  return config;
}

GgufMetadata MetadataOf(const ModelConfig& config, const SyntheticModelOptions& options) {
  GgufMetadata metadata;
  metadata.Set("general.architecture", config.architecture);
  metadata.Set("general.name",
               absl::StrCat("synthetic ", config.architecture, ", ",
                            base::GetDataTypeInfo(options.type).name, ", seed ", options.seed));
  metadata.Set("general.file_type", FileType(options.type));
  metadata.Set("general.quantization_version", uint64_t{2});
  const auto set_int = [&](absl::string_view key, int64_t value) {
    metadata.Set(absl::StrCat(config.architecture, ".", key), static_cast<uint64_t>(value));
  };
  const auto set_float = [&](absl::string_view key, double value) {
    // What a reader of 32-bit floats gets back.
    metadata.Set(absl::StrCat(config.architecture, ".", key),
                 static_cast<double>(static_cast<float>(value)));
  };
  set_int("context_length", config.context_length);
  set_int("embedding_length", config.d_model);
  set_int("block_count", config.n_layers);
  set_int("feed_forward_length", config.d_ff);
  if (config.has_experts()) {
    set_int("expert_count", config.n_experts);
    set_int("expert_used_count", config.n_experts_used);
    set_int("expert_feed_forward_length", config.d_ff);
  }
  set_int("attention.head_count", config.n_heads);
  set_int("attention.head_count_kv", config.n_kv_heads);
  set_int("attention.key_length", config.head_dim);
  set_int("attention.value_length", config.head_dim);
  set_int("rope.dimension_count", config.rope.dims);
  set_int("vocab_size", config.vocab_size);
  set_float("attention.layer_norm_rms_epsilon", config.norm_epsilon);
  set_float("rope.freq_base", config.rope.base);
  SetSyntheticVocabulary(config.vocab_size, metadata);
  return metadata;
}

// What scores the experts; quantisers leave it as it is.
bool IsRouter(const TensorSpec& spec) { return absl::StrContains(spec.name, "ffn_gate_inp"); }

DataType TypeFor(const TensorSpec& spec, DataType wanted) {
  if (spec.must_be_f32 || IsRouter(spec)) return DataType::kF32;
  for (const DataType type : {wanted, DataType::kQ8_0}) {
    if (spec.columns % base::GetDataTypeInfo(type).block_elements == 0) return type;
  }
  return DataType::kF16;
}

// A vector's numbers: rope factors from 1 to 8, biases around 0, norm weights around 1.
std::vector<float> VectorNumbers(const TensorSpec& spec, RandomSource& random) {
  std::vector<float> numbers(static_cast<size_t>(spec.columns));
  for (size_t i = 0; i < numbers.size(); ++i) {
    if (absl::StartsWith(spec.name, "rope_freqs")) {
      numbers[i] = 1.0f + 7.0f * static_cast<float>(i) / static_cast<float>(numbers.size());
    } else {
      const float centre = absl::EndsWith(spec.name, ".bias") ? 0.0f : 1.0f;
      numbers[i] = centre + 0.1f * random.NextSigned();
    }
  }
  return numbers;
}

absl::Status FillMatrix(const TensorSpec& spec, DataType type, float deviation,
                        RandomSource& random, const GgufTensorToWrite::Sink& sink) {
  RENGA_ASSIGN_OR_RETURN(const int64_t row_bytes, base::RowBytes(type, spec.columns));
  const int64_t rows_per_piece = std::max<int64_t>(1, kPieceBytes / row_bytes);
  std::vector<std::byte> piece(
      static_cast<size_t>(std::min(rows_per_piece, spec.rows) * row_bytes));
  for (int64_t row = 0; row < spec.rows; row += rows_per_piece) {
    const int64_t rows = std::min(rows_per_piece, spec.rows - row);
    const auto bytes = std::span(piece).first(static_cast<size_t>(rows * row_bytes));
    FillRandomBlocks(type, deviation, random, bytes);
    RENGA_RETURN_IF_ERROR(sink(bytes));
  }
  return absl::OkStatus();
}

// SyntheticModelOptions::router_skew: a row is an expert's.
absl::Status FillRouter(const TensorSpec& spec, float deviation, double skew, RandomSource& random,
                        const GgufTensorToWrite::Sink& sink) {
  std::vector<size_t> ranks(static_cast<size_t>(spec.rows));
  std::iota(ranks.begin(), ranks.end(), 0);
  for (size_t i = ranks.size(); i > 1; --i) std::swap(ranks[i - 1], ranks[random.Next() % i]);
  std::vector<float> row(static_cast<size_t>(spec.columns));
  const auto bytes = std::as_writable_bytes(std::span(row));
  for (const size_t rank : ranks) {
    const double scale = std::pow(1.0 + static_cast<double>(rank), -skew);
    FillRandomBlocks(DataType::kF32, deviation * static_cast<float>(scale), random, bytes);
    RENGA_RETURN_IF_ERROR(sink(bytes));
  }
  return absl::OkStatus();
}

GgufTensorToWrite TensorToWrite(const TensorSpec& spec, DataType wanted, float deviation,
                                const SyntheticModelOptions& options) {
  const DataType type = TypeFor(spec, wanted);
  // A seed of its own for each tensor: its bytes do not depend on which others there are.
  const std::string seed_text = absl::StrCat(options.seed, " ", spec.name);
  const uint64_t tensor_seed = base::HashBytes(std::as_bytes(std::span(seed_text))).low;
  GgufTensorToWrite tensor{.name = spec.name, .type = type, .dims = {spec.columns}, .fill = {}};
  const int64_t matrices = std::max<int64_t>(spec.experts, 1);
  if (spec.rows > 1) tensor.dims.push_back(spec.rows / matrices);
  if (spec.experts > 0) tensor.dims.push_back(matrices);
  tensor.fill = [=, skew = options.router_skew](const GgufTensorToWrite::Sink& sink) {
    RandomSource random(tensor_seed);
    if (IsRouter(spec) && skew > 0) return FillRouter(spec, deviation, skew, random, sink);
    if (!spec.must_be_f32) return FillMatrix(spec, type, deviation, random, sink);
    const std::vector<float> numbers = VectorNumbers(spec, random);
    return sink(std::as_bytes(std::span(numbers)));
  };
  return tensor;
}

// Keeps the size of what flows through a linear layer.
float LinearDeviation(const TensorSpec& spec) {
  // Scores that differ clearly: else the last bits of a sum would choose the experts.
  const float scale = IsRouter(spec) ? 2.0f : 1.0f;
  return scale / std::sqrt(static_cast<float>(spec.columns));
}

}  // namespace

absl::StatusOr<SyntheticModelOptions> SyntheticShape(absl::string_view name) {
  SyntheticModelOptions options;
  if (name == "tiny") return options;
  if (name == "tiny-moe") {
    options.d_ff = 256;
    options.n_experts = 8;
    options.n_experts_used = 2;
    return options;
  }
  if (name == "1.1b") {
    options.n_layers = 22;
    options.d_model = 2048;
    options.n_heads = 32;
    options.n_kv_heads = 4;
    options.d_ff = 5632;
    options.context_length = 2048;
  } else if (name == "7b") {
    options.n_layers = 32;
    options.d_model = 4096;
    options.n_heads = 32;
    options.n_kv_heads = 32;
    options.d_ff = 11008;
    options.context_length = 4096;
  } else {
    return absl::InvalidArgumentError(
        absl::StrCat("unknown shape \"", name, "\"; known are tiny, tiny-moe, 1.1b and 7b"));
  }
  options.vocab_size = 32000;
  return options;
}

absl::StatusOr<SyntheticModel> MakeSyntheticModel(const SyntheticModelOptions& options) {
  RENGA_RETURN_IF_ERROR(CheckOptions(options));
  RENGA_ASSIGN_OR_RETURN(const Architecture* architecture, FindArchitecture(options.architecture));
  const ModelConfig config = ConfigOf(options);
  SyntheticModel model;
  model.metadata = MetadataOf(config, options);
  const auto add = [&](const TensorSpec& spec, DataType type, float deviation) {
    model.tensors.push_back(TensorToWrite(spec, type, deviation, options));
  };
  const TensorSpec embedding = EmbeddingTensor(config);
  const TensorSpec output = OutputTensor(config);
  const DataType output_type = options.output_type.value_or(options.type);
  add(embedding, config.tied_output ? output_type : options.type,
      config.tied_output ? LinearDeviation(embedding) : kEmbeddingDeviation);
  add(OutputNormTensor(config), DataType::kF32, 0);
  if (!config.tied_output) add(output, output_type, LinearDeviation(output));
  if (config.rope_has_factors) add(RopeFactorsTensor(config), DataType::kF32, 0);
  for (int64_t layer = 0; layer < config.n_layers; ++layer) {
    for (const TensorSpec& spec : architecture->LayerTensors(config, layer)) {
      add(spec, options.type, LinearDeviation(spec));
    }
  }
  return model;
}

absl::Status WriteSyntheticModel(const std::string& path, const SyntheticModelOptions& options) {
  RENGA_ASSIGN_OR_RETURN(const SyntheticModel model, MakeSyntheticModel(options));
  return WriteGguf(path, model.metadata, model.tensors);
}

}  // namespace renga::model

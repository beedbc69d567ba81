#include "model/architectures/config_reader.h"

#include <cmath>

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"

namespace renga::model {

ConfigReader::ConfigReader(const GgufFile& file, absl::string_view architecture)
    : file_(file), metadata_(file.metadata()), prefix_(absl::StrCat(architecture, ".")) {}

std::string ConfigReader::Key(absl::string_view key) const { return absl::StrCat(prefix_, key); }

absl::Status ConfigReader::Missing(absl::string_view key) const {
  return absl::InvalidArgumentError(absl::StrCat("the model's metadata lacks the key ", Key(key)));
}

absl::StatusOr<int64_t> ConfigReader::RequiredInt(absl::string_view key, int64_t min,
                                                  int64_t max) const {
  RENGA_ASSIGN_OR_RETURN(const auto value, metadata_.GetInt(Key(key), min, max));
  if (!value) return Missing(key);
  return *value;
}

absl::StatusOr<int64_t> ConfigReader::OptionalInt(absl::string_view key, int64_t min, int64_t max,
                                                  int64_t when_absent) const {
  RENGA_ASSIGN_OR_RETURN(const auto value, metadata_.GetInt(Key(key), min, max));
  return value.value_or(when_absent);
}

absl::StatusOr<std::optional<int64_t>> ConfigReader::PerLayerInt(absl::string_view key,
                                                                 int64_t layers, int64_t min,
                                                                 int64_t max) const {
  const std::string full_key = Key(key);
  const GgufValue* value = metadata_.Find(full_key);
  if (value == nullptr || !std::holds_alternative<GgufArray>(*value)) {
    return metadata_.GetInt(full_key, min, max);
  }
  const auto array = metadata_.GetInts(full_key);
  RENGA_RETURN_IF_ERROR(array.status());
  const std::vector<int64_t>& numbers = **array;
  if (static_cast<int64_t>(numbers.size()) != layers) {
    return absl::InvalidArgumentError(absl::StrCat(
        "metadata key ", full_key, " has ", numbers.size(), " numbers for ", layers, " layers"));
  }
  for (const int64_t number : numbers) {
    if (number < min || number > max) {
      return absl::InvalidArgumentError(absl::StrCat("metadata key ", full_key,
                                                     " must lie between ", min, " and ", max,
                                                     " but holds ", number));
    }
    if (number != numbers.front()) {
      return absl::UnimplementedError(
          absl::StrCat("metadata key ", full_key, " differs from layer to layer (", numbers.front(),
                       " and ", number, "), which renga does not compute"));
    }
  }
  return std::optional<int64_t>(numbers.front());
}

absl::StatusOr<std::optional<double>> ConfigReader::PositiveFloat(absl::string_view key,
                                                                  double max) const {
  RENGA_ASSIGN_OR_RETURN(const auto value, metadata_.GetFloat(Key(key)));
  if (value && !(std::isfinite(*value) && *value > 0 && *value <= max)) {
    return absl::InvalidArgumentError(absl::StrCat(
        "metadata key ", Key(key), " must be above 0 and at most ", max, " but is ", *value));
  }
  return value;
}

absl::Status ConfigReader::ReadShape(ModelConfig& config) const {
  RENGA_ASSIGN_OR_RETURN(config.n_layers, RequiredInt("block_count", 1, kMaxLayers));
  RENGA_ASSIGN_OR_RETURN(config.d_model, RequiredInt("embedding_length", 1, kMaxModelWidth));
  RENGA_ASSIGN_OR_RETURN(config.context_length, RequiredInt("context_length", 1, kMaxContext));
  RENGA_ASSIGN_OR_RETURN(const auto d_ff, PerLayerInt("feed_forward_length", config.n_layers, 1,
                                                      kMaxFeedForwardWidth));
  if (!d_ff) return Missing("feed_forward_length");
  config.d_ff = *d_ff;
  RENGA_RETURN_IF_ERROR(ReadHeads(config));
  return ReadHeadDim(config);
}

absl::Status ConfigReader::ReadHeads(ModelConfig& config) const {
  RENGA_ASSIGN_OR_RETURN(const auto n_heads,
                         PerLayerInt("attention.head_count", config.n_layers, 1, kMaxHeads));
  if (!n_heads) return Missing("attention.head_count");
  config.n_heads = *n_heads;
  RENGA_ASSIGN_OR_RETURN(const auto n_kv_heads,
                         PerLayerInt("attention.head_count_kv", config.n_layers, 1, *n_heads));
  config.n_kv_heads = n_kv_heads.value_or(*n_heads);
  if (config.n_heads % config.n_kv_heads != 0) {
    return absl::InvalidArgumentError(absl::StrCat(
        Key("attention.head_count"), " is ", config.n_heads, ", which is no multiple of ",
        Key("attention.head_count_kv"), " = ", config.n_kv_heads));
  }
  return absl::OkStatus();
}

absl::Status ConfigReader::ReadHeadDim(ModelConfig& config) const {
  RENGA_ASSIGN_OR_RETURN(const auto key_length,
                         metadata_.GetInt(Key("attention.key_length"), 1, kMaxHeadDim));
  if (!key_length &&
      (config.d_model % config.n_heads != 0 || config.d_model / config.n_heads > kMaxHeadDim)) {
    return absl::InvalidArgumentError(absl::StrCat(
        Key("embedding_length"), " = ", config.d_model, " cannot be divided into ",
        Key("attention.head_count"), " = ", config.n_heads, " heads of at most ", kMaxHeadDim));
  }
  config.head_dim = key_length ? *key_length : config.d_model / config.n_heads;
  RENGA_ASSIGN_OR_RETURN(const int64_t value_length,
                         OptionalInt("attention.value_length", 1, kMaxHeadDim, config.head_dim));
  if (value_length != config.head_dim) {
    return absl::UnimplementedError(absl::StrCat(
        Key("attention.value_length"), " is ", value_length, " but heads of keys have ",
        config.head_dim, " numbers; renga computes only models where they are equal"));
  }
  return absl::OkStatus();
}

absl::Status ConfigReader::ReadRope(ModelConfig& config) const {
  constexpr double kMaxBase = 1e15;
  RENGA_ASSIGN_OR_RETURN(config.rope.dims,
                         OptionalInt("rope.dimension_count", 2, config.head_dim, config.head_dim));
  if (config.rope.dims % 2 != 0) {
    return absl::InvalidArgumentError(absl::StrCat(Key("rope.dimension_count"), " is ",
                                                   config.rope.dims,
                                                   ", but numbers are rotated in pairs"));
  }
  RENGA_ASSIGN_OR_RETURN(const auto base, PositiveFloat("rope.freq_base", kMaxBase));
  config.rope.base = base.value_or(10000.0);
  config.rope_has_factors = file_.FindTensor("rope_freqs.weight") != nullptr;
  return ReadRopeScaling(config.rope);
}

absl::Status ConfigReader::ReadRopeScaling(RopeConfig& rope) const {
  constexpr double kMaxFactor = 1e6;
  const auto type = metadata_.GetString(Key("rope.scaling.type"));
  RENGA_RETURN_IF_ERROR(type.status());
  if (type->has_value() && **type == "none") return absl::OkStatus();
  if (type->has_value() && **type != "linear") {
    return absl::UnimplementedError(absl::StrCat(
        Key("rope.scaling.type"), " is \"", **type,
        "\", which renga does not compute; it computes linear scaling and Llama 3's factors"));
  }
  // The second key is the one that older converters wrote. A factor of 0 means none.
  for (const absl::string_view key : {"rope.scaling.factor", "rope.scale_linear"}) {
    RENGA_ASSIGN_OR_RETURN(const auto factor, metadata_.GetFloat(Key(key)));
    if (!factor || *factor == 0) continue;
    RENGA_RETURN_IF_ERROR(PositiveFloat(key, kMaxFactor).status());
    rope.position_scale = *factor;
    return absl::OkStatus();
  }
  return absl::OkStatus();
}

absl::Status ConfigReader::RefuseOtherExperts() const {
  constexpr int64_t kMost = 1 << 20;
  constexpr int64_t kSoftmax = 1;
  RENGA_ASSIGN_OR_RETURN(const int64_t gating,
                         OptionalInt("expert_gating_func", 0, kMost, kSoftmax));
  RENGA_ASSIGN_OR_RETURN(const int64_t shared, OptionalInt("expert_shared_count", 0, kMost, 0));
  RENGA_ASSIGN_OR_RETURN(const int64_t groups, OptionalInt("expert_group_count", 0, kMost, 0));
  RENGA_ASSIGN_OR_RETURN(const auto scale, metadata_.GetFloat(Key("expert_weights_scale")));
  const double factor = scale.value_or(1);
  if (gating <= kSoftmax && shared == 0 && groups <= 1 && (factor == 0 || factor == 1)) {
    return absl::OkStatus();
  }
  return absl::UnimplementedError(
      "the model's experts are chosen in a way that renga does not compute: it knows a softmax "
      "over the scores of all experts, without groups, shared experts and a scale");
}

absl::Status ConfigReader::ReadExperts(Experts allowed, ModelConfig& config) const {
  RENGA_ASSIGN_OR_RETURN(
      config.n_experts,
      OptionalInt("expert_count", allowed == Experts::kAlways ? 1 : 0, kMaxExperts, 0));
  if (config.n_experts == 0) {
    return allowed == Experts::kAlways ? Missing("expert_count") : absl::OkStatus();
  }
  if (allowed == Experts::kNever) {
    return absl::UnimplementedError(absl::StrCat("the model is a mixture of ", config.n_experts,
                                                 " experts, which renga computes only in llama "
                                                 "(Mixtral) and qwen3moe models"));
  }
  RENGA_RETURN_IF_ERROR(RefuseOtherExperts());
  RENGA_ASSIGN_OR_RETURN(const auto used,
                         PerLayerInt("expert_used_count", config.n_layers, 1, config.n_experts));
  if (!used) return Missing("expert_used_count");
  config.n_experts_used = *used;
  RENGA_ASSIGN_OR_RETURN(const auto width, PerLayerInt("expert_feed_forward_length",
                                                       config.n_layers, 1, kMaxFeedForwardWidth));
  config.d_ff = width.value_or(config.d_ff);
  return absl::OkStatus();
}

absl::StatusOr<int64_t> ConfigReader::ReadVocabularySize() const {
  RENGA_ASSIGN_OR_RETURN(const auto size, metadata_.GetInt(Key("vocab_size"), 1, kMaxVocabulary));
  if (size) return *size;
  int64_t counted = 0;
  absl::string_view where = "tokenizer.ggml.tokens";
  RENGA_ASSIGN_OR_RETURN(const auto* tokens, metadata_.GetStrings(where));
  if (tokens != nullptr) {
    counted = static_cast<int64_t>(tokens->size());
  } else {
    where = "token_embd.weight";
    const GgufTensor* embedding = file_.FindTensor(where);
    if (embedding == nullptr) return Missing("vocab_size");
    counted = embedding->row_count();
  }
  if (counted >= 1 && counted <= kMaxVocabulary) return counted;
  return absl::InvalidArgumentError(
      absl::StrCat(where, " holds ", counted, " tokens; 1 to ", kMaxVocabulary, " are possible"));
}

absl::Status ConfigReader::RefuseForeignFeatures() const {
  RENGA_ASSIGN_OR_RETURN(const auto causal, metadata_.GetBool(Key("attention.causal")));
  if (!causal.value_or(true)) {
    return absl::UnimplementedError(
        "the model's attention looks ahead (an embedding model), which renga does not compute");
  }
  return absl::OkStatus();
}

}  // namespace renga::model

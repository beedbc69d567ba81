// Gemma 3 (text): Llama's blocks with norms on both sides of each branch, norms over the heads of
// queries and keys, GELU gates, scaled embeddings, and layers of two kinds: most see a window of
// the last positions and rotate by a base of their own, the others see all. Norm weights are stored
// ready for use.
#include <cmath>

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "model/architectures/config_reader.h"
#include "model/architectures/llama_family.h"
#include "model/architectures/registry.h"

namespace renga::model {
namespace {

constexpr char kPattern[] = "gemma3.attention.sliding_window_pattern";

// Which layers are windowed: all but every n-th, or as an array of booleans says.
absl::StatusOr<std::vector<bool>> ReadPattern(const GgufMetadata& metadata, int64_t n_layers) {
  constexpr int64_t kUsualPattern = 6;
  const GgufValue* value = metadata.Find(kPattern);
  if (value != nullptr && std::holds_alternative<GgufArray>(*value)) {
    const auto* flags = std::get_if<std::vector<bool>>(&std::get<GgufArray>(*value));
    if (flags == nullptr || static_cast<int64_t>(flags->size()) != n_layers) {
      return absl::InvalidArgumentError(absl::StrCat("metadata key ", kPattern,
                                                     " is no array of one boolean for each of ",
                                                     n_layers, " layers"));
    }
    return *flags;
  }
  RENGA_ASSIGN_OR_RETURN(const auto every, metadata.GetInt(kPattern, 1, kMaxLayers));
  const int64_t n = every.value_or(kUsualPattern);
  std::vector<bool> windowed(static_cast<size_t>(n_layers));
  for (int64_t layer = 0; layer < n_layers; ++layer) {
    windowed[static_cast<size_t>(layer)] = layer % n != n - 1;
  }
  return windowed;
}

class Gemma3Family : public LlamaFamily {
 public:
  Gemma3Family()
      : LlamaFamily({.name = "gemma3",
                     .rope_style = RopeStyle::kHalves,
                     .head_norms = true,
                     .post_norms = true,
                     .gelu_gate = true}) {}

  absl::StatusOr<ModelConfig> ReadConfig(const GgufFile& file) const override {
    const ConfigReader reader(file, name());
    RENGA_ASSIGN_OR_RETURN(const auto cap, file.metadata().GetFloat(kSoftcap));
    if (cap.value_or(0) != 0) {
      return absl::UnimplementedError(
          absl::StrCat(kSoftcap, " is ", *cap,
                       "; renga computes only Gemma models that do not cap their logits"));
    }
    RENGA_ASSIGN_OR_RETURN(ModelConfig config, LlamaFamily::ReadConfig(file));
    config.embedding_scale = std::sqrt(static_cast<double>(config.d_model));
    // The largest of the family scales scores by the width per head, not by the head's own.
    constexpr int64_t kLayersOf27B = 62;
    if (config.n_layers == kLayersOf27B) {
      config.attention_scale =
          1.0f / std::sqrt(static_cast<float>(config.d_model) / static_cast<float>(config.n_heads));
    }
    RENGA_RETURN_IF_ERROR(ReadWindow(file, reader, config));
    return config;
  }

 private:
  static constexpr char kSoftcap[] = "gemma3.final_logit_softcapping";

  // A file without the key has no windowed layers.
  static absl::Status ReadWindow(const GgufFile& file, const ConfigReader& reader,
                                 ModelConfig& config) {
    constexpr double kMaxBase = 1e15;
    RENGA_ASSIGN_OR_RETURN(config.window,
                           reader.OptionalInt("attention.sliding_window", 0, kMaxContext, 0));
    if (config.window == 0) return absl::OkStatus();
    RENGA_ASSIGN_OR_RETURN(config.windowed_layers, ReadPattern(file.metadata(), config.n_layers));
    config.window_rope = {.style = config.rope.style, .dims = config.rope.dims};
    RENGA_ASSIGN_OR_RETURN(const auto base, reader.PositiveFloat("rope.freq_base_swa", kMaxBase));
    config.window_rope.base = base.value_or(10000.0);
    return absl::OkStatus();
  }
};

}  // namespace

const Architecture* Gemma3Architecture() {
  static const Gemma3Family kGemma3;
  return &kGemma3;
}

}  // namespace renga::model

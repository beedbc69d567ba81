// The hyper-parameters of a transformer, read from a model file's metadata and checked: every
// number is in a sane range, so code that multiplies a few of them cannot overflow int64.
#ifndef RENGA_MODEL_MODEL_CONFIG_H_
#define RENGA_MODEL_MODEL_CONFIG_H_

#include <cmath>
#include <cstdint>
#include <string>
#include <vector>

namespace renga::model {

enum class RopeStyle {
  kNeighbours,  // pair i is (x[2i], x[2i+1]): GGUF's llama family
  kHalves,      // pair i is (x[i], x[i + rot/2]): qwen2, qwen3 and most others
};

struct RopeConfig {
  RopeStyle style = RopeStyle::kNeighbours;
  int64_t dims = 0;  // numbers of each head that are rotated
  double base = 10000.0;
  double position_scale = 1.0;  // linear scaling: positions are divided by this
};

struct ModelConfig {
  std::string architecture;  // GGUF's general.architecture
  std::string name;          // general.name, for people
  int64_t n_layers = 0;
  int64_t d_model = 0;
  int64_t n_heads = 0;
  int64_t n_kv_heads = 0;
  int64_t head_dim = 0;  // of keys and values; n_heads * head_dim need not be d_model
  int64_t d_ff = 0;      // of each expert, in a mixture of experts
  // The feed-forwards of each layer, of which each token uses some; 0: one, for every token.
  int64_t n_experts = 0;
  int64_t n_experts_used = 0;
  int64_t vocab_size = 0;
  int64_t context_length = 0;  // trained context, tokens
  double norm_epsilon = 0;
  RopeConfig rope;
  bool rope_has_factors = false;  // rope_freqs.weight: divisors, one per rotated pair
  bool tied_output = false;       // the output matrix is the embedding matrix
  double embedding_scale = 1.0;   // embedding rows are multiplied by this, the output matrix is not
  float attention_scale = 0;      // of the scores; 0: 1/sqrt(head_dim)
  // Layers whose tokens see the last `window` positions only, their own among them. They rotate by
  // `window_rope`. Empty: no layer does; else one entry a layer.
  std::vector<bool> windowed_layers;
  int64_t window = 0;
  RopeConfig window_rope;

  bool has_experts() const { return n_experts > 0; }
  // The part of a layer's experts that one token uses.
  double ExpertShare() const {
    return has_experts() ? static_cast<double>(n_experts_used) / static_cast<double>(n_experts) : 0;
  }
  int64_t q_width() const { return n_heads * head_dim; }
  int64_t kv_width() const { return n_kv_heads * head_dim; }
  bool IsWindowed(int64_t layer) const {
    return !windowed_layers.empty() && windowed_layers[static_cast<size_t>(layer)];
  }
  const RopeConfig& RopeOf(int64_t layer) const { return IsWindowed(layer) ? window_rope : rope; }
  float ScoreScale() const {
    return attention_scale > 0 ? attention_scale : 1.0f / std::sqrt(static_cast<float>(head_dim));
  }
};

}  // namespace renga::model

#endif  // RENGA_MODEL_MODEL_CONFIG_H_

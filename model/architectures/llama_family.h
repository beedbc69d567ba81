// What Llama and its close relatives share: pre-norm blocks of rotary grouped-query attention and
// a gated feed-forward, all with RMS norms. A member says in LlamaFamilyTraits where it
// differs; anything that differs more is a family of its own.
#ifndef RENGA_MODEL_ARCHITECTURES_LLAMA_FAMILY_H_
#define RENGA_MODEL_ARCHITECTURES_LLAMA_FAMILY_H_

#include "model/architecture.h"
#include "model/architectures/config_reader.h"

namespace renga::model {

struct LlamaFamilyTraits {
  absl::string_view name;  // general.architecture
  RopeStyle rope_style = RopeStyle::kNeighbours;
  bool qkv_bias = false;    // biases on queries, keys and values
  bool head_norms = false;  // an RMS norm over each head of queries and keys, before rope
  bool post_norms = false;  // an RMS norm over what each branch adds to the residual stream
  bool gelu_gate = false;   // the feed-forward's gate is GELU in the form with tanh, not SiLU
  Experts experts = Experts::kNever;
};

class LlamaFamily : public Architecture {
 public:
  explicit LlamaFamily(const LlamaFamilyTraits& traits) : traits_(traits) {}

  absl::string_view name() const override { return traits_.name; }
  absl::StatusOr<ModelConfig> ReadConfig(const GgufFile& file) const override;
  std::vector<TensorSpec> LayerTensors(const ModelConfig& config, int64_t layer) const override;
  LayerProgram Program(const ModelConfig& config) const override;

 private:
  const LlamaFamilyTraits traits_;
};

}  // namespace renga::model

#endif  // RENGA_MODEL_ARCHITECTURES_LLAMA_FAMILY_H_

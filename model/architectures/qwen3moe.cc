// Qwen3 with experts: Qwen3's attention, and feed-forwards of which each token uses some.
#include "model/architectures/llama_family.h"
#include "model/architectures/registry.h"

namespace renga::model {

const Architecture* Qwen3MoeArchitecture() {
  static const LlamaFamily kQwen3Moe({.name = "qwen3moe",
                                      .rope_style = RopeStyle::kHalves,
                                      .head_norms = true,
                                      .experts = Experts::kAlways});
  return &kQwen3Moe;
}

}  // namespace renga::model

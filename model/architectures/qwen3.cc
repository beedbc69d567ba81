// Qwen3 (dense): Llama's blocks with a norm over each head of queries and keys.
#include "model/architectures/llama_family.h"
#include "model/architectures/registry.h"

namespace renga::model {

const Architecture* Qwen3Architecture() {
  static const LlamaFamily kQwen3(
      {.name = "qwen3", .rope_style = RopeStyle::kHalves, .head_norms = true});
  return &kQwen3;
}

}  // namespace renga::model

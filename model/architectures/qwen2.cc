// Qwen2 and Qwen2.5: Llama's blocks with biases on queries, keys and values.
#include "model/architectures/llama_family.h"
#include "model/architectures/registry.h"

namespace renga::model {

const Architecture* Qwen2Architecture() {
  static const LlamaFamily kQwen2(
      {.name = "qwen2", .rope_style = RopeStyle::kHalves, .qkv_bias = true});
  return &kQwen2;
}

}  // namespace renga::model

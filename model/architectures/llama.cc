// Llama 1, 2 and 3, and what converts to the same tensors: Mistral, SmolLM2, TinyLlama and others,
// and with experts Mixtral.
#include "model/architectures/llama_family.h"
#include "model/architectures/registry.h"

namespace renga::model {

const Architecture* LlamaArchitecture() {
  static const LlamaFamily kLlama(
      {.name = "llama", .rope_style = RopeStyle::kNeighbours, .experts = Experts::kPerhaps});
  return &kLlama;
}

}  // namespace renga::model

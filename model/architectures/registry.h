// The families renga knows. To add one: a file in this folder, a line here and one in registry.cc.
// Internal to model/; others ask FindArchitecture and AllArchitectures of model/architecture.h.
#ifndef RENGA_MODEL_ARCHITECTURES_REGISTRY_H_
#define RENGA_MODEL_ARCHITECTURES_REGISTRY_H_

#include "model/architecture.h"

namespace renga::model {

// Each returns the family's only object, which lives as long as the program.
const Architecture* LlamaArchitecture();
const Architecture* Qwen2Architecture();
const Architecture* Qwen3Architecture();
const Architecture* Qwen3MoeArchitecture();
const Architecture* Gemma3Architecture();

}  // namespace renga::model

#endif  // RENGA_MODEL_ARCHITECTURES_REGISTRY_H_

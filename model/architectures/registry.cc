#include "model/architectures/registry.h"

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"

namespace renga::model {

std::vector<const Architecture*> AllArchitectures() {
  return {LlamaArchitecture(), Qwen2Architecture(), Qwen3Architecture(), Qwen3MoeArchitecture(),
          Gemma3Architecture()};
}

absl::StatusOr<const Architecture*> FindArchitecture(absl::string_view name) {
  std::vector<absl::string_view> known;
  for (const Architecture* architecture : AllArchitectures()) {
    if (architecture->name() == name) return architecture;
    known.push_back(architecture->name());
  }
  return absl::UnimplementedError(absl::StrCat("the model's architecture is \"", name,
                                               "\", which renga does not know; it knows ",
                                               absl::StrJoin(known, ", ")));
}

}  // namespace renga::model

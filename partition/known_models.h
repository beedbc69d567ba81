// Models known by name, for plans without a file: sizes of published ones, in the format mixes that
// people download. Sources beside the table.
#ifndef RENGA_PARTITION_KNOWN_MODELS_H_
#define RENGA_PARTITION_KNOWN_MODELS_H_

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "model/architecture.h"
#include "model/footprint.h"

namespace renga::partition {

struct KnownModel {
  model::Model model;
  model::ModelFootprint footprint;
};

// "llama-2-13b" or "llama-2-13b:Q4_K_M"; formats: Q4_K_M (default) or any single one (Q8_0).
// kNotFound names the models that are known.
absl::StatusOr<KnownModel> FindKnownModel(absl::string_view name);

std::vector<std::string> KnownModelNames();

}  // namespace renga::partition

#endif  // RENGA_PARTITION_KNOWN_MODELS_H_

// What of a model texts used most and least, as `renga regions` measured it.
#ifndef RENGA_PARTITION_HEAT_ORDER_H_
#define RENGA_PARTITION_HEAT_ORDER_H_

#include <cstdint>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "model/approximation.h"
#include "model/model_config.h"

namespace renga::partition {

// The rows of a vocabulary of `vocab_size` that texts used most, best first, from the JSON that
// `renga regions` writes; a row may come twice. kInvalidArgument when it is none, or of a model
// with another vocabulary.
absl::StatusOr<std::vector<int32_t>> ParseHotRows(absl::string_view report, int64_t vocab_size);

// The last `percent` (0 to 100) of each layer's neurons in the report's order, ascending.
// kInvalidArgument when it is no such JSON, or of a model with other layers.
absl::StatusOr<model::NeuronSet> ParseColdNeurons(absl::string_view report,
                                                  const model::ModelConfig& config,
                                                  int64_t percent);

}  // namespace renga::partition

#endif  // RENGA_PARTITION_HEAT_ORDER_H_

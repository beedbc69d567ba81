// Arrays of JSON schemas.
#ifndef RENGA_COORDINATOR_SERVING_GRAMMAR_SCHEMA_ARRAYS_H_
#define RENGA_COORDINATOR_SERVING_GRAMMAR_SCHEMA_ARRAYS_H_

#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "coordinator/serving/grammar/expression.h"
#include "coordinator/serving/grammar/schema_walk.h"
#include "nlohmann/json_fwd.hpp"

namespace renga::grammar {

inline constexpr absl::string_view kArrayKeywords[] = {"items", "prefixItems", "minItems",
                                                       "maxItems"};

// The arrays that the keywords of `schema` allow. `walk` reads the schemas of the items.
absl::StatusOr<Expression> ArraysOf(const nlohmann::ordered_json& schema, const std::string& where,
                                    SchemaWalk& walk);

}  // namespace renga::grammar

#endif  // RENGA_COORDINATOR_SERVING_GRAMMAR_SCHEMA_ARRAYS_H_

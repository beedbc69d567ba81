// Objects of JSON schemas.
#ifndef RENGA_COORDINATOR_SERVING_GRAMMAR_SCHEMA_OBJECTS_H_
#define RENGA_COORDINATOR_SERVING_GRAMMAR_SCHEMA_OBJECTS_H_

#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "coordinator/serving/grammar/expression.h"
#include "coordinator/serving/grammar/schema_walk.h"
#include "nlohmann/json_fwd.hpp"

namespace renga::grammar {

inline constexpr absl::string_view kObjectKeywords[] = {"properties", "required",
                                                        "additionalProperties"};

// The objects that the keywords of `schema` allow, members in the order of the schema. `walk` reads
// the schemas of the members.
absl::StatusOr<Expression> ObjectsOf(const nlohmann::ordered_json& schema, const std::string& where,
                                     SchemaWalk& walk);

}  // namespace renga::grammar

#endif  // RENGA_COORDINATOR_SERVING_GRAMMAR_SCHEMA_OBJECTS_H_

// Numbers and integers of JSON schemas.
#ifndef RENGA_COORDINATOR_SERVING_GRAMMAR_SCHEMA_NUMBERS_H_
#define RENGA_COORDINATOR_SERVING_GRAMMAR_SCHEMA_NUMBERS_H_

#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "coordinator/serving/grammar/expression.h"
#include "nlohmann/json_fwd.hpp"

namespace renga::grammar {

inline constexpr absl::string_view kNumberKeywords[] = {"minimum", "maximum", "exclusiveMinimum",
                                                        "exclusiveMaximum"};

// The numbers that the keywords of `schema` allow; `type` is number or integer. Bounds are exact
// (number_range.h): those that are no 64-bit integers count as the shortest decimal that reads as
// the same 64-bit float. Equal bounds share a rule.
absl::StatusOr<Expression> NumbersOf(const nlohmann::ordered_json& schema, const std::string& type,
                                     const std::string& where, RuleSet& rules);

}  // namespace renga::grammar

#endif  // RENGA_COORDINATOR_SERVING_GRAMMAR_SCHEMA_NUMBERS_H_

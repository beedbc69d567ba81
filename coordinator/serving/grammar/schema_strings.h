// Strings of JSON schemas.
#ifndef RENGA_COORDINATOR_SERVING_GRAMMAR_SCHEMA_STRINGS_H_
#define RENGA_COORDINATOR_SERVING_GRAMMAR_SCHEMA_STRINGS_H_

#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "coordinator/serving/grammar/expression.h"
#include "nlohmann/json_fwd.hpp"

namespace renga::grammar {

inline constexpr absl::string_view kStringKeywords[] = {"minLength", "maxLength", "format",
                                                        "pattern"};

// The strings that the keywords of `schema` allow, with their quotes.
absl::StatusOr<Expression> StringsOf(const nlohmann::ordered_json& schema, const std::string& where,
                                     RuleSet& rules);

}  // namespace renga::grammar

#endif  // RENGA_COORDINATOR_SERVING_GRAMMAR_SCHEMA_STRINGS_H_

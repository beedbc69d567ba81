// JSON itself as a grammar: what a schema without keywords allows.
#ifndef RENGA_COORDINATOR_SERVING_GRAMMAR_JSON_RULES_H_
#define RENGA_COORDINATOR_SERVING_GRAMMAR_JSON_RULES_H_

#include "absl/status/statusor.h"
#include "coordinator/serving/grammar/expression.h"

namespace renga::grammar {

// Any JSON object. Its rules are also those that schemas are put together from: space (what may
// stand between two parts), value, object, array, string (with its quotes), char (one character of
// a string), integer, number, boolean, null, format-date, format-time, format-date-time,
// format-uuid.
absl::StatusOr<RuleSet> AnyJsonObject();

}  // namespace renga::grammar

#endif  // RENGA_COORDINATOR_SERVING_GRAMMAR_JSON_RULES_H_

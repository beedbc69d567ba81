// JSON schemas as grammars: every text of the grammar is JSON that the schema allows.
//
// Understood are type (one or several), properties, required, additionalProperties, items,
// prefixItems, minItems, maxItems, minLength, maxLength, pattern (pattern.h), format (date, time,
// date-time, uuid), minimum, maximum, exclusiveMinimum, exclusiveMaximum, enum, const, anyOf, oneOf
// of branches that exclude each other (exclusive_branches.h), allOf of one part, $ref to a place in
// the same document (also to itself), and what only describes (title, description, default,
// examples, ...). Any other keyword is refused, so that none is passed over in silence.
//
// Of the many texts of one value some are left out, so that a model can't go on for ever with what
// says nothing: members come in the order of the schema, beside `properties` no others are written;
// between two parts stands nothing, a space, or a line break and up to 32 spaces or tabs; numbers
// have at most 15 digits before the point, 15 behind it and two in the exponent; with bounds they
// are as number_range.h says.
#ifndef RENGA_COORDINATOR_SERVING_GRAMMAR_JSON_SCHEMA_H_
#define RENGA_COORDINATOR_SERVING_GRAMMAR_JSON_SCHEMA_H_

#include <cstddef>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "coordinator/serving/grammar/expression.h"

namespace renga::grammar {

inline constexpr size_t kMaxSchemaBytes = 256 << 10;

// kInvalidArgument names the place in the schema and what is wrong with it.
absl::StatusOr<RuleSet> ParseJsonSchema(absl::string_view text);

}  // namespace renga::grammar

#endif  // RENGA_COORDINATOR_SERVING_GRAMMAR_JSON_SCHEMA_H_

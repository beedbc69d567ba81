// A JSON schema as it was sent: reading its text, finding places in it, saying what is wrong there.
// A place ("where") is written like a $ref: #/properties/name.
#ifndef RENGA_COORDINATOR_SERVING_GRAMMAR_SCHEMA_DOCUMENT_H_
#define RENGA_COORDINATOR_SERVING_GRAMMAR_SCHEMA_DOCUMENT_H_

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "nlohmann/json_fwd.hpp"

namespace renga::grammar {

// The most characters or items that a schema may ask for.
inline constexpr int64_t kMaxLengths = 65536;

// kInvalidArgument: it is not JSON, or is longer, deeper or has more in it than schemas may.
absl::StatusOr<nlohmann::ordered_json> ReadSchemaText(absl::string_view text);

// nullptr: the object has no such field.
const nlohmann::ordered_json* Find(const nlohmann::ordered_json& object, const char* field);

// What a $ref names (RFC 6901, as the fragment of a URI without its percent signs).
absl::StatusOr<const nlohmann::ordered_json*> Resolve(const nlohmann::ordered_json& root,
                                                      const std::string& pointer);

// The value of a keyword that counts, from 0 to kMaxLengths; without the keyword, `otherwise`.
absl::StatusOr<int64_t> Count(const nlohmann::ordered_json& schema, const char* keyword,
                              int64_t otherwise, const std::string& where);

// JSON as short as possible.
std::string Dump(const nlohmann::ordered_json& value);

absl::Status SchemaError(const std::string& where, absl::string_view what);
// A name out of the schema as an error shows it.
std::string Shown(absl::string_view name);

template <size_t kCount>
bool IsOneOf(absl::string_view name, const absl::string_view (&names)[kCount]) {
  return std::find(std::begin(names), std::end(names), name) != std::end(names);
}

}  // namespace renga::grammar

#endif  // RENGA_COORDINATOR_SERVING_GRAMMAR_SCHEMA_DOCUMENT_H_

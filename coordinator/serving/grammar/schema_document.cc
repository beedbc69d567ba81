#include "coordinator/serving/grammar/schema_document.h"

#include "absl/strings/escaping.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "absl/strings/str_split.h"
#include "coordinator/serving/grammar/json_schema.h"
#include "nlohmann/json.hpp"

namespace renga::grammar {
namespace {

using nlohmann::ordered_json;

constexpr int kMaxDepth = 32;  // of values in the schema's text
constexpr int kMaxFields = 4096;
constexpr int kMaxValues = 65536;

}  // namespace

absl::StatusOr<ordered_json> ReadSchemaText(absl::string_view text) {
  if (text.size() > kMaxSchemaBytes) {
    return absl::InvalidArgumentError(
        absl::StrCat("the schema is ", text.size(), " bytes long; the most is ", kMaxSchemaBytes));
  }
  int fields = 0;
  int values = 0;
  bool too_deep = false;
  const auto keep = [&](int depth, ordered_json::parse_event_t event, const ordered_json&) {
    if (event == ordered_json::parse_event_t::key) ++fields;
    ++values;
    too_deep |= depth > kMaxDepth;
    return !too_deep && fields <= kMaxFields && values <= kMaxValues;
  };
  ordered_json schema =
      ordered_json::parse(text.begin(), text.end(), keep, /*allow_exceptions=*/false);
  if (too_deep) {
    return absl::InvalidArgumentError(
        absl::StrCat("the schema is nested deeper than ", kMaxDepth, " levels"));
  }
  if (fields > kMaxFields || values > kMaxValues) {
    return absl::InvalidArgumentError(absl::StrCat("the schema has more than ", kMaxFields,
                                                   " fields or ", kMaxValues, " values"));
  }
  if (schema.is_discarded()) return absl::InvalidArgumentError("the schema is not valid JSON");
  return schema;
}

const ordered_json* Find(const ordered_json& object, const char* field) {
  const auto it = object.find(field);
  return it == object.end() ? nullptr : &*it;
}

absl::StatusOr<const ordered_json*> Resolve(const ordered_json& root, const std::string& pointer) {
  const ordered_json* at = &root;
  if (pointer == "#") return at;
  if (!absl::StartsWith(pointer, "#/")) {
    return SchemaError(pointer, "$ref must begin with #/ and name a place in the same schema");
  }
  for (const absl::string_view step : absl::StrSplit(pointer.substr(2), '/')) {
    const std::string name = absl::StrReplaceAll(step, {{"~1", "/"}, {"~0", "~"}});
    at = at->is_object() ? Find(*at, name.c_str()) : nullptr;
    if (at == nullptr) return SchemaError(pointer, "$ref names nothing in the schema");
  }
  return at;
}

absl::StatusOr<int64_t> Count(const ordered_json& schema, const char* keyword, int64_t otherwise,
                              const std::string& where) {
  const ordered_json* value = Find(schema, keyword);
  if (value == nullptr) return otherwise;
  const bool whole = value->is_number_unsigned();
  if (!whole || value->get<uint64_t>() > static_cast<uint64_t>(kMaxLengths)) {
    return SchemaError(where, absl::StrCat(keyword, " must be an integer from 0 to ", kMaxLengths));
  }
  return value->get<int64_t>();
}

// The text that it was parsed from was UTF-8.
std::string Dump(const ordered_json& value) {
  return value.dump(-1, ' ', false, ordered_json::error_handler_t::replace);
}

absl::Status SchemaError(const std::string& where, absl::string_view what) {
  return absl::InvalidArgumentError(
      absl::StrCat("schema ", absl::CHexEscape(where.substr(0, 200)), ": ", what));
}

std::string Shown(absl::string_view name) { return absl::CHexEscape(name.substr(0, 80)); }

}  // namespace renga::grammar

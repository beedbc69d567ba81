#include "coordinator/http/answer_format.h"

#include <string>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "coordinator/serving/grammar/grammar.h"
#include "coordinator/serving/grammar/json_schema.h"
#include "nlohmann/json.hpp"

namespace renga::http {
namespace {

using nlohmann::json;
using nlohmann::ordered_json;
using Network = std::shared_ptr<const grammar::Network>;

constexpr const char* kFormat = "response_format";
// Keeping order makes looking for a field slow in objects of very many.
constexpr int kMaxFormatFields = 8192;

absl::StatusOr<Network> InField(absl::StatusOr<Network> network, const char* field) {
  if (network.ok()) return network;
  return absl::Status(network.status().code(),
                      absl::StrCat(field, ": ", network.status().message()));
}

// response_format.json_schema.schema, its fields in the order in which they were written.
absl::StatusOr<std::string> SchemaText(absl::string_view text) {
  int fields = 0;
  bool inside = false;
  const auto keep = [&](int depth, ordered_json::parse_event_t event, const ordered_json& parsed) {
    if (event == ordered_json::parse_event_t::key) {
      if (depth == 1) return inside = parsed == kFormat;
      fields += inside ? 1 : 0;
    }
    return fields <= kMaxFormatFields;
  };
  const ordered_json body =
      ordered_json::parse(text.begin(), text.end(), keep, /*allow_exceptions=*/false);
  if (fields > kMaxFormatFields) {
    return absl::InvalidArgumentError(
        absl::StrCat("the schema has more than ", kMaxFormatFields, " fields"));
  }
  const ordered_json* at = &body;
  for (const char* field : {kFormat, "json_schema", "schema"}) {
    const auto next = at->is_object() ? at->find(field) : at->end();
    if (!at->is_object() || next == at->end()) {
      return absl::InvalidArgumentError("json_schema must be an object with a schema");
    }
    at = &*next;
  }
  return at->dump(-1, ' ', false, ordered_json::error_handler_t::replace);
}

absl::StatusOr<Network> OfResponseFormat(const json& format, absl::string_view text) {
  const json type = format.is_object() ? format.value("type", json()) : json();
  if (type == "text") return Network();
  if (type == "json_object") return grammar::OfAnyJsonObject();
  if (type == "json_schema") {
    RENGA_ASSIGN_OR_RETURN(const std::string ordered, SchemaText(text));
    return grammar::FromJsonSchema(ordered);
  }
  return absl::InvalidArgumentError("type must be text, json_object or json_schema");
}

}  // namespace

absl::StatusOr<Network> ReadAnswerFormat(const json& body, absl::string_view text) {
  const auto given = [&](const char* field) {
    const auto it = body.find(field);
    return it == body.end() || it->is_null() ? nullptr : &*it;
  };
  const json* rules = given("grammar");
  const json* format = given(kFormat);
  Network network;
  if (format != nullptr) {
    RENGA_ASSIGN_OR_RETURN(network, InField(OfResponseFormat(*format, text), kFormat));
  }
  if (rules == nullptr) return network;
  if (network != nullptr) {
    return absl::InvalidArgumentError("grammar and response_format can't be used together");
  }
  if (!rules->is_string()) return absl::InvalidArgumentError("grammar must be a string");
  return InField(grammar::FromGbnf(rules->get_ref<const std::string&>()), "grammar");
}

}  // namespace renga::http

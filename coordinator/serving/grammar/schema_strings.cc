#include "coordinator/serving/grammar/schema_strings.h"

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "coordinator/serving/grammar/schema_document.h"
#include "nlohmann/json.hpp"

namespace renga::grammar {

using nlohmann::ordered_json;

absl::StatusOr<Expression> StringsOf(const ordered_json& schema, const std::string& where,
                                     const RuleSet& rules) {
  const bool bounded = Find(schema, "minLength") != nullptr || Find(schema, "maxLength") != nullptr;
  if (const ordered_json* format = Find(schema, "format")) {
    const std::string name = format->is_string() ? format->get<std::string>() : "";
    constexpr absl::string_view kFormats[] = {"date", "time", "date-time", "uuid"};
    if (!IsOneOf(name, kFormats)) {
      return SchemaError(where, "format is supported as date, time, date-time or uuid only");
    }
    if (bounded) return SchemaError(where, "lengths are not supported beside format");
    return rules.Call(absl::StrCat("format-", name));
  }
  if (!bounded) return rules.Call("string");
  RENGA_ASSIGN_OR_RETURN(const int64_t least, Count(schema, "minLength", 0, where));
  RENGA_ASSIGN_OR_RETURN(const int64_t most,
                         Count(schema, "maxLength", Expression::kNoLimit, where));
  if (most != Expression::kNoLimit && most < least) {
    return SchemaError(where, "maxLength is below minLength");
  }
  return Sequence({Text("\""), Repeat(rules.Call("char"), least, most), Text("\"")});
}

}  // namespace renga::grammar

#include "coordinator/serving/grammar/schema_strings.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "coordinator/serving/grammar/pattern.h"
#include "coordinator/serving/grammar/schema_document.h"
#include "nlohmann/json.hpp"

namespace renga::grammar {

namespace {

using nlohmann::ordered_json;

absl::StatusOr<Expression> OfFormat(const ordered_json& schema, const std::string& where,
                                    const RuleSet& rules) {
  const ordered_json& format = *Find(schema, "format");
  const std::string name = format.is_string() ? format.get<std::string>() : "";
  constexpr absl::string_view kFormats[] = {"date", "time", "date-time", "uuid"};
  if (!IsOneOf(name, kFormats)) {
    return SchemaError(where, "format is supported as date, time, date-time or uuid only");
  }
  if (Find(schema, "minLength") != nullptr || Find(schema, "maxLength") != nullptr) {
    return SchemaError(where, "lengths are not supported beside format");
  }
  if (Find(schema, "pattern") != nullptr) {
    return SchemaError(where, "pattern is not supported beside format");
  }
  return rules.Call(absl::StrCat("format-", name));
}

absl::StatusOr<Expression> OfPattern(const ordered_json& pattern, int64_t least, int64_t most,
                                     const std::string& where, RuleSet& rules) {
  if (!pattern.is_string()) return SchemaError(where, "pattern must be a string");
  absl::StatusOr<Expression> contents =
      StringsMatching(pattern.get_ref<const std::string&>(), least, most, rules);
  if (contents.ok()) return contents;
  return SchemaError(where, absl::StrCat("pattern: ", contents.status().message()));
}

}  // namespace

absl::StatusOr<Expression> StringsOf(const ordered_json& schema, const std::string& where,
                                     RuleSet& rules) {
  if (Find(schema, "format") != nullptr) return OfFormat(schema, where, rules);
  RENGA_ASSIGN_OR_RETURN(const int64_t least, Count(schema, "minLength", 0, where));
  RENGA_ASSIGN_OR_RETURN(const int64_t most,
                         Count(schema, "maxLength", Expression::kNoLimit, where));
  if (most != Expression::kNoLimit && most < least) {
    return SchemaError(where, "maxLength is below minLength");
  }
  const ordered_json* pattern = Find(schema, "pattern");
  if (pattern == nullptr && least == 0 && most == Expression::kNoLimit) return rules.Call("string");
  Expression contents = Repeat(rules.Call("char"), least, most);
  if (pattern != nullptr) {
    RENGA_ASSIGN_OR_RETURN(contents, OfPattern(*pattern, least, most, where, rules));
  }
  return Sequence({Text("\""), std::move(contents), Text("\"")});
}

}  // namespace renga::grammar

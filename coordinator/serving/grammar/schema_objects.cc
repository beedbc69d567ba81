#include "coordinator/serving/grammar/schema_objects.h"

#include <algorithm>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "base/status_macros.h"
#include "coordinator/serving/grammar/schema_document.h"
#include "nlohmann/json.hpp"

namespace renga::grammar {
namespace {

using nlohmann::ordered_json;

struct Member {
  int64_t rule = 0;  // name, value and the space behind it
  bool required = false;
};

absl::Status NotDefined(const std::string& name, const std::string& where) {
  return SchemaError(
      where, absl::StrCat("required names ", Shown(name), ", which is not one of the properties"));
}

absl::StatusOr<std::vector<std::string>> Required(const ordered_json& schema,
                                                  const std::string& where) {
  std::vector<std::string> names;
  const ordered_json* list = Find(schema, "required");
  if (list == nullptr) return names;
  if (!list->is_array()) return SchemaError(where, "required must be an array of names");
  for (const ordered_json& name : *list) {
    if (!name.is_string()) return SchemaError(where, "required must be an array of names");
    names.push_back(name.get<std::string>());
  }
  return names;
}

// An object without properties of its own.
absl::StatusOr<Expression> Map(const ordered_json& schema, const std::string& where,
                               SchemaWalk& walk) {
  const ordered_json* others = Find(schema, "additionalProperties");
  RuleSet& rules = walk.rules();
  if (others == nullptr || (others->is_boolean() && others->get<bool>())) {
    return rules.Call("object");
  }
  const Expression space = rules.Call("space");
  if (others->is_boolean()) return Sequence({Text("{"), space, Text("}")});
  const std::string place = absl::StrCat(where, "/additionalProperties");
  RENGA_ASSIGN_OR_RETURN(Expression value, walk.Value(*others, place));
  const int64_t member =
      rules.Add(absl::StrCat("schema ", place),
                Sequence({rules.Call("string"), Text(":"), space, std::move(value), space}));
  Expression more = Sequence({Text(","), space, RuleCall(member)});
  Expression list = Sequence({RuleCall(member), Repeat(std::move(more), 0, Expression::kNoLimit)});
  return Sequence({Text("{"), space, Optional(std::move(list)), Text("}")});
}

// From the last one forwards: what may follow when some member was written, and what when none
// was. As rules, so that many optional members take little room.
Expression Members(const std::vector<Member>& members, const std::string& where, RuleSet& rules) {
  Expression after_some = Text("");
  Expression after_none = Text("");
  for (size_t i = members.size(); i-- > 0;) {
    const auto& [rule, required] = members[i];
    Expression with = Sequence({RuleCall(rule), after_some});
    Expression more = Sequence({Text(","), rules.Call("space"), RuleCall(rule)});
    after_none = required ? std::move(with) : Choice({std::move(with), std::move(after_none)});
    if (!required) more = Optional(std::move(more));
    after_some = RuleCall(rules.Add(absl::StrCat("schema ", where, " from member ", i),
                                    Sequence({std::move(more), std::move(after_some)})));
    after_none = RuleCall(
        rules.Add(absl::StrCat("schema ", where, " from first member ", i), std::move(after_none)));
  }
  return after_none;
}

}  // namespace

absl::StatusOr<Expression> ObjectsOf(const ordered_json& schema, const std::string& where,
                                     SchemaWalk& walk) {
  RENGA_ASSIGN_OR_RETURN(const std::vector<std::string> required, Required(schema, where));
  const ordered_json* properties = Find(schema, "properties");
  if (properties == nullptr || properties->empty()) {
    if (!required.empty()) return NotDefined(required.front(), where);
    return Map(schema, where, walk);
  }
  if (!properties->is_object()) {
    return SchemaError(where, "properties must be an object of schemas");
  }
  for (const std::string& name : required) {
    if (!properties->contains(name)) return NotDefined(name, where);
  }
  if (const ordered_json* others = Find(schema, "additionalProperties")) {
    // Looked at for what is wrong with it, though none are written.
    if (!others->is_boolean()) {
      RENGA_RETURN_IF_ERROR(
          walk.Value(*others, absl::StrCat(where, "/additionalProperties")).status());
    }
  }
  RuleSet& rules = walk.rules();
  const Expression space = rules.Call("space");
  std::vector<Member> members;
  for (const auto& [name, value] : properties->items()) {
    const std::string place =
        absl::StrCat(where, "/properties/", absl::StrReplaceAll(name, {{"~", "~0"}, {"/", "~1"}}));
    RENGA_ASSIGN_OR_RETURN(Expression expression, walk.Value(value, place));
    Expression member = Sequence(
        {Text(absl::StrCat(Dump(ordered_json(name)), ":")), space, std::move(expression), space});
    const bool must = std::find(required.begin(), required.end(), name) != required.end();
    members.push_back({rules.Add(absl::StrCat("schema ", place), std::move(member)), must});
  }
  return Sequence({Text("{"), space, Members(members, where, rules), Text("}")});
}

}  // namespace renga::grammar

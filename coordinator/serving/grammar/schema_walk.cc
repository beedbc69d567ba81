#include "coordinator/serving/grammar/schema_walk.h"

#include <algorithm>
#include <initializer_list>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "coordinator/serving/grammar/network.h"
#include "coordinator/serving/grammar/schema_arrays.h"
#include "coordinator/serving/grammar/schema_document.h"
#include "coordinator/serving/grammar/schema_numbers.h"
#include "coordinator/serving/grammar/schema_objects.h"
#include "coordinator/serving/grammar/schema_strings.h"
#include "coordinator/serving/grammar/schema_types.h"
#include "nlohmann/json.hpp"

namespace renga::grammar {
namespace {

using nlohmann::ordered_json;

// Schemas that lie in each other, those that are named by $ref among them.
constexpr int kMaxSchemaDepth = 256;

// discriminator says which branch of a oneOf to look at; these are looked at themselves.
constexpr absl::string_view kDescribing[] = {
    "title",      "description", "default",   "examples", "$schema",     "$id",          "$comment",
    "deprecated", "readOnly",    "writeOnly", "$defs",    "definitions", "discriminator"};

bool Describes(absl::string_view keyword) {
  return IsOneOf(keyword, kDescribing) || absl::StartsWith(keyword, "x-");
}

// The only type that a keyword says something about, or nullptr.
const char* TypeOfKeyword(absl::string_view keyword) {
  if (IsOneOf(keyword, kObjectKeywords)) return "object";
  if (IsOneOf(keyword, kArrayKeywords)) return "array";
  if (IsOneOf(keyword, kStringKeywords)) return "string";
  if (IsOneOf(keyword, kNumberKeywords)) return "number";
  return nullptr;
}

absl::Status CheckAlone(const ordered_json& schema,
                        std::initializer_list<absl::string_view> keywords,
                        const std::string& where) {
  for (const auto& [keyword, value] : schema.items()) {
    const bool named = std::find(keywords.begin(), keywords.end(), keyword) != keywords.end();
    if (named || Describes(keyword)) continue;
    return SchemaError(where, absl::StrCat("keyword ", Shown(keyword), " is not supported beside ",
                                           *keywords.begin()));
  }
  return absl::OkStatus();
}

absl::StatusOr<Expression> OneOfValues(const ordered_json& schema, const std::string& where) {
  const ordered_json* one = Find(schema, "const");
  const char* keyword = one != nullptr ? "const" : "enum";
  RENGA_RETURN_IF_ERROR(CheckAlone(schema, {keyword, "type"}, where));
  const ordered_json list = one != nullptr ? ordered_json::array({*one}) : schema["enum"];
  if (!list.is_array()) return SchemaError(where, "enum must be an array of values");
  RENGA_ASSIGN_OR_RETURN(const std::vector<std::string> types, TypesOf(schema, where));
  std::vector<Expression> parts;
  for (const ordered_json& value : list) {
    const bool fits =
        types.empty() || std::any_of(types.begin(), types.end(),
                                     [&](const auto& type) { return HasType(value, type); });
    if (fits) parts.push_back(Text(Dump(value)));
  }
  if (parts.empty()) return SchemaError(where, absl::StrCat(keyword, " has no value of its type"));
  return Choice(std::move(parts));
}

}  // namespace

SchemaWalk::SchemaWalk(const ordered_json& root, RuleSet rules)
    : root_(root), rules_(std::move(rules)), exclusive_branches_(root) {}

absl::StatusOr<RuleSet> SchemaWalk::Finish() {
  RENGA_ASSIGN_OR_RETURN(rules_.root, RuleOf("#"));
  return std::move(rules_);
}

// The rule of what a $ref names. Schemas may lie in themselves: a rule is known before it is
// made.
absl::StatusOr<int64_t> SchemaWalk::RuleOf(const std::string& pointer) {
  if (const auto known = by_pointer_.find(pointer); known != by_pointer_.end()) {
    return known->second;
  }
  RENGA_ASSIGN_OR_RETURN(const ordered_json* schema, Resolve(root_, pointer));
  const int64_t rule = rules_.Add(absl::StrCat("schema ", pointer), {});
  by_pointer_[pointer] = rule;
  RENGA_ASSIGN_OR_RETURN(Expression expression, Value(*schema, pointer));
  rules_.rules[static_cast<size_t>(rule)].expression = std::move(expression);
  return rule;
}

absl::StatusOr<Expression> SchemaWalk::Value(const ordered_json& schema, const std::string& where) {
  if (schema.is_boolean() && schema.get<bool>()) return rules_.Call("value");
  if (!schema.is_object()) return SchemaError(where, "expected an object of keywords");
  if (depth_ >= kMaxSchemaDepth) return SchemaError(where, "too many schemas lie in each other");
  if (std::ssize(rules_.rules) > kMaxRules) return SchemaError(where, "the schema is too large");
  ++depth_;
  absl::StatusOr<Expression> expression = ObjectOfKeywords(schema, where);
  --depth_;
  return expression;
}

absl::StatusOr<Expression> SchemaWalk::ObjectOfKeywords(const ordered_json& schema,
                                                        const std::string& where) {
  if (const ordered_json* ref = Find(schema, "$ref")) {
    RENGA_RETURN_IF_ERROR(CheckAlone(schema, {"$ref"}, where));
    if (!ref->is_string()) return SchemaError(where, "$ref must be a string");
    RENGA_ASSIGN_OR_RETURN(const int64_t rule, RuleOf(ref->get<std::string>()));
    return RuleCall(rule);
  }
  if (const ordered_json* any = Find(schema, "anyOf")) {
    RENGA_RETURN_IF_ERROR(CheckAlone(schema, {"anyOf"}, where));
    return AnyOf(*any, absl::StrCat(where, "/anyOf"));
  }
  if (const ordered_json* one = Find(schema, "oneOf")) {
    RENGA_RETURN_IF_ERROR(CheckAlone(schema, {"oneOf"}, where));
    return OneOf(*one, absl::StrCat(where, "/oneOf"));
  }
  if (const ordered_json* all = Find(schema, "allOf")) {
    RENGA_RETURN_IF_ERROR(CheckAlone(schema, {"allOf"}, where));
    if (!all->is_array() || all->size() != 1) {
      return SchemaError(where, "allOf is supported with one part only");
    }
    return Value(all->front(), absl::StrCat(where, "/allOf/0"));
  }
  if (Find(schema, "const") != nullptr || Find(schema, "enum") != nullptr) {
    return OneOfValues(schema, where);
  }
  return ByType(schema, where);
}

absl::StatusOr<Expression> SchemaWalk::AnyOf(const ordered_json& list, const std::string& where) {
  if (!list.is_array() || list.empty()) return SchemaError(where, "expected an array of schemas");
  std::vector<Expression> parts;
  for (size_t i = 0; i < list.size(); ++i) {
    RENGA_ASSIGN_OR_RETURN(parts.emplace_back(), Value(list[i], absl::StrCat(where, "/", i)));
  }
  return Choice(std::move(parts));
}

// Branches that exclude each other: any of them is just one of them.
absl::StatusOr<Expression> SchemaWalk::OneOf(const ordered_json& list, const std::string& where) {
  RENGA_ASSIGN_OR_RETURN(Expression any, AnyOf(list, where));
  RENGA_RETURN_IF_ERROR(exclusive_branches_.Check(list, where));
  return any;
}

absl::StatusOr<Expression> SchemaWalk::ByType(const ordered_json& schema,
                                              const std::string& where) {
  RENGA_ASSIGN_OR_RETURN(std::vector<std::string> types, TypesOf(schema, where));
  std::vector<std::string> types_of_keywords;
  for (const auto& [keyword, value] : schema.items()) {
    if (keyword == "type" || Describes(keyword)) continue;
    const char* type = TypeOfKeyword(keyword);
    if (type == nullptr) {
      return SchemaError(where,
                         absl::StrCat("keyword ", Shown(keyword),
                                      " is not supported; leave it out, or write a grammar"));
    }
    const auto end = types_of_keywords.end();
    if (std::find(types_of_keywords.begin(), end, type) == end) types_of_keywords.push_back(type);
  }
  if (types.empty()) types = std::move(types_of_keywords);
  if (types.empty()) return rules_.Call("value");
  std::vector<Expression> parts;
  for (const std::string& type : types) {
    RENGA_ASSIGN_OR_RETURN(parts.emplace_back(), OfType(type, schema, where));
  }
  return parts.size() == 1 ? std::move(parts.front()) : Choice(std::move(parts));
}

absl::StatusOr<Expression> SchemaWalk::OfType(const std::string& type, const ordered_json& schema,
                                              const std::string& where) {
  if (type == "object") return ObjectsOf(schema, where, *this);
  if (type == "array") return ArraysOf(schema, where, *this);
  if (type == "string") return StringsOf(schema, where, rules_);
  if (type == "number" || type == "integer") return NumbersOf(schema, type, where, rules_);
  return rules_.Call(type);
}

}  // namespace renga::grammar

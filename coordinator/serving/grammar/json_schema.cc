#include "coordinator/serving/grammar/json_schema.h"

#include <algorithm>
#include <initializer_list>
#include <limits>
#include <string>
#include <utility>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/status/status.h"
#include "absl/strings/escaping.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "absl/strings/str_split.h"
#include "base/status_macros.h"
#include "coordinator/serving/grammar/gbnf_parser.h"
#include "coordinator/serving/grammar/network.h"
#include "nlohmann/json.hpp"

namespace renga::grammar {
namespace {

using nlohmann::ordered_json;

constexpr int kMaxDepth = 32;  // of values in the schema's text
constexpr int kMaxFields = 4096;
constexpr int kMaxValues = 65536;
constexpr int64_t kMaxLengths = 65536;
constexpr size_t kMaxPrefixItems = 64;
// Schemas that lie in each other, those that are named by $ref among them.
constexpr int kMaxSchemaDepth = 256;

constexpr absl::string_view kJsonRules = R"gbnf(
root ::= object
space ::= (" " | "\n" [ \t]{0,32})?
value ::= object | array | string | number | boolean | null
object ::= "{" space (member ("," space member)*)? "}"
member ::= string ":" space value space
array ::= "[" space (element ("," space element)*)? "]"
element ::= value space
string ::= "\"" char* "\""
char ::= [^"\\\x00-\x1f\x7f] | "\\" (["\\/bfnrt] | "u" unit)
unit ::= [0-9a-cA-CefEF] hex{3} | [dD] [0-7] hex{2} | [dD] [89abAB] hex{2} "\\u" [dD] [c-fC-F] hex{2}
hex ::= [0-9a-fA-F]
integer ::= "-"? ("0" | [1-9] [0-9]{0,14})
number ::= integer ("." [0-9]{1,15})? ([eE] [-+]? [0-9]{1,2})?
boolean ::= "true" | "false"
null ::= "null"
year-day ::= [0-9]{4} "-" ("0" [1-9] | "1" [0-2]) "-" ("0" [1-9] | [12] [0-9] | "3" [01])
day-time ::= ([01] [0-9] | "2" [0-3]) ":" [0-5] [0-9] ":" [0-5] [0-9] ("." [0-9]{1,9})? zone
zone ::= "Z" | [-+] ([01] [0-9] | "2" [0-3]) ":" [0-5] [0-9]
format-date ::= "\"" year-day "\""
format-time ::= "\"" day-time "\""
format-date-time ::= "\"" year-day "T" day-time "\""
format-uuid ::= "\"" hex{8} ("-" hex{4}){3} "-" hex{12} "\""
)gbnf";

constexpr absl::string_view kDescribing[] = {"title",    "description", "default",  "examples",
                                             "$schema",  "$id",         "$comment", "deprecated",
                                             "readOnly", "writeOnly",   "$defs",    "definitions"};
constexpr absl::string_view kOfObjects[] = {"properties", "required", "additionalProperties"};
constexpr absl::string_view kOfArrays[] = {"items", "prefixItems", "minItems", "maxItems"};
constexpr absl::string_view kOfStrings[] = {"minLength", "maxLength", "format"};

template <size_t kCount>
bool IsOneOf(absl::string_view name, const absl::string_view (&names)[kCount]) {
  return std::find(std::begin(names), std::end(names), name) != std::end(names);
}

bool Describes(absl::string_view keyword) {
  return IsOneOf(keyword, kDescribing) || absl::StartsWith(keyword, "x-");
}

const ordered_json* Find(const ordered_json& object, const char* field) {
  const auto it = object.find(field);
  return it == object.end() ? nullptr : &*it;
}

// JSON as short as possible. The text that it was parsed from was UTF-8.
std::string Dump(const ordered_json& value) {
  return value.dump(-1, ' ', false, ordered_json::error_handler_t::replace);
}

absl::StatusOr<ordered_json> ParseText(absl::string_view text) {
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

class Converter {
 public:
  Converter(const ordered_json& root, RuleSet rules) : root_(root), rules_(std::move(rules)) {}

  absl::StatusOr<RuleSet> Convert() {
    RENGA_ASSIGN_OR_RETURN(rules_.root, RuleOf("#"));
    return std::move(rules_);
  }

 private:
  static absl::Status Wrong(const std::string& where, absl::string_view what) {
    return absl::InvalidArgumentError(
        absl::StrCat("schema ", absl::CHexEscape(where.substr(0, 200)), ": ", what));
  }

  Expression Call(const char* rule) const { return RuleCall(rules_.Find(rule)); }

  int64_t AddRule(std::string name, Expression expression) {
    rules_.rules.push_back({std::move(name), std::move(expression)});
    return std::ssize(rules_.rules) - 1;
  }

  // The rule of what a $ref names. Schemas may lie in themselves: a rule is known before it is
  // made.
  absl::StatusOr<int64_t> RuleOf(const std::string& pointer) {
    if (const auto known = by_pointer_.find(pointer); known != by_pointer_.end()) {
      return known->second;
    }
    RENGA_ASSIGN_OR_RETURN(const ordered_json* schema, Resolve(pointer));
    const int64_t rule = AddRule(absl::StrCat("schema ", pointer), {});
    by_pointer_[pointer] = rule;
    RENGA_ASSIGN_OR_RETURN(Expression expression, Value(*schema, pointer));
    rules_.rules[static_cast<size_t>(rule)].expression = std::move(expression);
    return rule;
  }

  // RFC 6901, as the fragment of a URI without its percent signs.
  absl::StatusOr<const ordered_json*> Resolve(const std::string& pointer) {
    const ordered_json* at = &root_;
    if (pointer == "#") return at;
    if (!absl::StartsWith(pointer, "#/")) {
      return Wrong(pointer, "$ref must begin with #/ and name a place in the same schema");
    }
    for (const absl::string_view step : absl::StrSplit(pointer.substr(2), '/')) {
      const std::string name = absl::StrReplaceAll(step, {{"~1", "/"}, {"~0", "~"}});
      at = at->is_object() ? Find(*at, name.c_str()) : nullptr;
      if (at == nullptr) return Wrong(pointer, "$ref names nothing in the schema");
    }
    return at;
  }

  absl::StatusOr<Expression> Value(const ordered_json& schema, const std::string& where) {
    if (schema.is_boolean() && schema.get<bool>()) return Call("value");
    if (!schema.is_object()) return Wrong(where, "expected an object of keywords");
    if (depth_ >= kMaxSchemaDepth) return Wrong(where, "too many schemas lie in each other");
    if (std::ssize(rules_.rules) > kMaxRules) return Wrong(where, "the schema is too large");
    ++depth_;
    absl::StatusOr<Expression> expression = ObjectOfKeywords(schema, where);
    --depth_;
    return expression;
  }

  absl::StatusOr<Expression> ObjectOfKeywords(const ordered_json& schema,
                                              const std::string& where) {
    if (const ordered_json* ref = Find(schema, "$ref")) {
      RENGA_RETURN_IF_ERROR(CheckAlone(schema, {"$ref"}, where));
      if (!ref->is_string()) return Wrong(where, "$ref must be a string");
      RENGA_ASSIGN_OR_RETURN(const int64_t rule, RuleOf(ref->get<std::string>()));
      return RuleCall(rule);
    }
    if (const ordered_json* any = Find(schema, "anyOf")) {
      RENGA_RETURN_IF_ERROR(CheckAlone(schema, {"anyOf"}, where));
      return AnyOf(*any, absl::StrCat(where, "/anyOf"));
    }
    if (const ordered_json* all = Find(schema, "allOf")) {
      RENGA_RETURN_IF_ERROR(CheckAlone(schema, {"allOf"}, where));
      if (!all->is_array() || all->size() != 1) {
        return Wrong(where, "allOf is supported with one part only");
      }
      return Value(all->front(), absl::StrCat(where, "/allOf/0"));
    }
    if (Find(schema, "const") != nullptr || Find(schema, "enum") != nullptr) {
      return OneOfValues(schema, where);
    }
    return ByType(schema, where);
  }

  static absl::Status CheckAlone(const ordered_json& schema,
                                 std::initializer_list<absl::string_view> keywords,
                                 const std::string& where) {
    for (const auto& [keyword, value] : schema.items()) {
      const bool named = std::find(keywords.begin(), keywords.end(), keyword) != keywords.end();
      if (named || Describes(keyword)) continue;
      return Wrong(where, absl::StrCat("keyword ", absl::CHexEscape(keyword.substr(0, 80)),
                                       " is not supported beside ", *keywords.begin()));
    }
    return absl::OkStatus();
  }

  absl::StatusOr<Expression> AnyOf(const ordered_json& list, const std::string& where) {
    if (!list.is_array() || list.empty()) return Wrong(where, "expected an array of schemas");
    std::vector<Expression> parts;
    for (size_t i = 0; i < list.size(); ++i) {
      RENGA_ASSIGN_OR_RETURN(parts.emplace_back(), Value(list[i], absl::StrCat(where, "/", i)));
    }
    return Choice(std::move(parts));
  }

  absl::StatusOr<Expression> OneOfValues(const ordered_json& schema, const std::string& where) {
    const ordered_json* one = Find(schema, "const");
    const char* keyword = one != nullptr ? "const" : "enum";
    RENGA_RETURN_IF_ERROR(CheckAlone(schema, {keyword, "type"}, where));
    const ordered_json list = one != nullptr ? ordered_json::array({*one}) : schema["enum"];
    if (!list.is_array()) return Wrong(where, "enum must be an array of values");
    std::vector<std::string> types;
    if (Find(schema, "type") != nullptr) {
      RENGA_ASSIGN_OR_RETURN(types, Types(schema, where));
    }
    std::vector<Expression> parts;
    for (const ordered_json& value : list) {
      const bool fits =
          types.empty() || std::any_of(types.begin(), types.end(),
                                       [&](const auto& type) { return HasType(value, type); });
      if (fits) parts.push_back(Text(Dump(value)));
    }
    if (parts.empty()) return Wrong(where, absl::StrCat(keyword, " has no value of its type"));
    return Choice(std::move(parts));
  }

  static bool HasType(const ordered_json& value, const std::string& type) {
    if (type == "number") return value.is_number();
    if (type == "integer") return value.is_number_integer();
    return type == value.type_name();
  }

  // As `type` says, or as the keywords that only one type has.
  absl::StatusOr<std::vector<std::string>> Types(const ordered_json& schema,
                                                 const std::string& where) {
    const ordered_json* type = Find(schema, "type");
    const ordered_json list = type == nullptr
                                  ? ordered_json::array()
                                  : (type->is_array() ? *type : ordered_json::array({*type}));
    std::vector<std::string> types;
    for (const ordered_json& name : list) {
      constexpr absl::string_view kTypes[] = {"object",  "array",   "string", "number",
                                              "integer", "boolean", "null"};
      if (!name.is_string() || !IsOneOf(name.get_ref<const std::string&>(), kTypes)) {
        return Wrong(where,
                     "type must be object, array, string, number, integer, boolean, null, or an "
                     "array of these");
      }
      const bool again =
          std::find(types.begin(), types.end(), name.get<std::string>()) != types.end();
      if (!again) types.push_back(name.get<std::string>());
    }
    if (type != nullptr && types.empty()) return Wrong(where, "type has no type in it");
    return types;
  }

  absl::StatusOr<Expression> ByType(const ordered_json& schema, const std::string& where) {
    RENGA_ASSIGN_OR_RETURN(std::vector<std::string> types, Types(schema, where));
    bool of_objects = false;
    bool of_arrays = false;
    bool of_strings = false;
    for (const auto& [keyword, value] : schema.items()) {
      of_objects |= IsOneOf(keyword, kOfObjects);
      of_arrays |= IsOneOf(keyword, kOfArrays);
      of_strings |= IsOneOf(keyword, kOfStrings);
      if (IsOneOf(keyword, kOfObjects) || IsOneOf(keyword, kOfArrays) ||
          IsOneOf(keyword, kOfStrings) || keyword == "type" || Describes(keyword)) {
        continue;
      }
      return Wrong(where, absl::StrCat("keyword ", absl::CHexEscape(keyword.substr(0, 80)),
                                       " is not supported; leave it out, or write a grammar"));
    }
    if (types.empty()) {
      if (of_objects) types.push_back("object");
      if (of_arrays) types.push_back("array");
      if (of_strings) types.push_back("string");
      if (types.empty()) return Call("value");
    }
    std::vector<Expression> parts;
    for (const std::string& type : types) {
      RENGA_ASSIGN_OR_RETURN(parts.emplace_back(), OfType(type, schema, where));
    }
    return parts.size() == 1 ? std::move(parts.front()) : Choice(std::move(parts));
  }

  absl::StatusOr<Expression> OfType(const std::string& type, const ordered_json& schema,
                                    const std::string& where) {
    if (type == "object") return Object(schema, where);
    if (type == "array") return Array(schema, where);
    if (type == "string") return String(schema, where);
    return Call(type.c_str());
  }

  static absl::StatusOr<int64_t> Count(const ordered_json& schema, const char* keyword,
                                       int64_t otherwise, const std::string& where) {
    const ordered_json* value = Find(schema, keyword);
    if (value == nullptr) return otherwise;
    const bool whole = value->is_number_unsigned();
    if (!whole || value->get<uint64_t>() > static_cast<uint64_t>(kMaxLengths)) {
      return Wrong(where, absl::StrCat(keyword, " must be an integer from 0 to ", kMaxLengths));
    }
    return value->get<int64_t>();
  }

  absl::StatusOr<Expression> String(const ordered_json& schema, const std::string& where) {
    const bool bounded =
        Find(schema, "minLength") != nullptr || Find(schema, "maxLength") != nullptr;
    if (const ordered_json* format = Find(schema, "format")) {
      const std::string name = format->is_string() ? format->get<std::string>() : "";
      constexpr absl::string_view kFormats[] = {"date", "time", "date-time", "uuid"};
      if (!IsOneOf(name, kFormats)) {
        return Wrong(where, "format is supported as date, time, date-time or uuid only");
      }
      if (bounded) return Wrong(where, "lengths are not supported beside format");
      return Call(absl::StrCat("format-", name).c_str());
    }
    if (!bounded) return Call("string");
    RENGA_ASSIGN_OR_RETURN(const int64_t least, Count(schema, "minLength", 0, where));
    RENGA_ASSIGN_OR_RETURN(const int64_t most,
                           Count(schema, "maxLength", Expression::kNoLimit, where));
    if (most != Expression::kNoLimit && most < least) {
      return Wrong(where, "maxLength is below minLength");
    }
    return Sequence({Text("\""), Repeat(Call("char"), least, most), Text("\"")});
  }

  absl::StatusOr<Expression> Array(const ordered_json& schema, const std::string& where) {
    RENGA_ASSIGN_OR_RETURN(const int64_t least, Count(schema, "minItems", 0, where));
    RENGA_ASSIGN_OR_RETURN(const int64_t most,
                           Count(schema, "maxItems", Expression::kNoLimit, where));
    if (most != Expression::kNoLimit && most < least) {
      return Wrong(where, "maxItems is below minItems");
    }
    std::vector<int64_t> first;  // rules of the first items
    if (const ordered_json* list = Find(schema, "prefixItems")) {
      if (!list->is_array() || list->size() > kMaxPrefixItems) {
        return Wrong(where, absl::StrCat("prefixItems must be an array of at most ",
                                         kMaxPrefixItems, " schemas"));
      }
      for (size_t i = 0; i < list->size(); ++i) {
        RENGA_ASSIGN_OR_RETURN(const int64_t item,
                               ItemRule((*list)[i], absl::StrCat(where, "/prefixItems/", i)));
        first.push_back(item);
      }
    }
    const ordered_json* items = Find(schema, "items");
    const bool no_more = items != nullptr && items->is_boolean() && !items->get<bool>();
    int64_t other = -1;
    if (!no_more) {
      const ordered_json any(true);
      RENGA_ASSIGN_OR_RETURN(
          other, ItemRule(items != nullptr ? *items : any, absl::StrCat(where, "/items")));
    }
    return Items(first, other, least, most, where);
  }

  // An item and the space behind it.
  absl::StatusOr<int64_t> ItemRule(const ordered_json& schema, const std::string& where) {
    RENGA_ASSIGN_OR_RETURN(Expression value, Value(schema, where));
    return AddRule(absl::StrCat("schema ", where), Sequence({std::move(value), Call("space")}));
  }

  // `other`: the rule of items behind the first ones, or -1.
  absl::StatusOr<Expression> Items(const std::vector<int64_t>& first, int64_t other, int64_t least,
                                   int64_t most, const std::string& where) const {
    const auto known = std::ssize(first);
    if (other < 0) most = most == Expression::kNoLimit ? known : std::min(most, known);
    if (most != Expression::kNoLimit && least > most) {
      return Wrong(where, "minItems is more than the array can have");
    }
    const auto item = [&](int64_t index) {
      Expression one = RuleCall(index < known ? first[static_cast<size_t>(index)] : other);
      return index == 0 ? one : Sequence({Text(","), Call("space"), std::move(one)});
    };
    // From the last one of its own kind forwards: each may be followed by the rest.
    const int64_t listed = std::max(known, int64_t{1});
    Expression rest = Text("");
    if (most == Expression::kNoLimit || most > listed) {
      rest = Repeat(item(listed), std::max<int64_t>(0, least - listed),
                    most == Expression::kNoLimit ? most : most - listed);
    }
    for (int64_t i = std::min(listed, most == Expression::kNoLimit ? listed : most) - 1; i >= 0;
         --i) {
      Expression with = Sequence({item(i), std::move(rest)});
      rest = i < least ? std::move(with) : Optional(std::move(with));
    }
    return Sequence({Text("["), Call("space"), std::move(rest), Text("]")});
  }

  struct Member {
    int64_t rule = 0;  // name, value and the space behind it
    bool required = false;
  };

  absl::StatusOr<Expression> Object(const ordered_json& schema, const std::string& where) {
    RENGA_ASSIGN_OR_RETURN(const std::vector<std::string> required, Required(schema, where));
    const ordered_json* properties = Find(schema, "properties");
    if (properties == nullptr || properties->empty()) {
      if (!required.empty()) return NotDefined(required.front(), where);
      return Map(schema, where);
    }
    if (!properties->is_object()) return Wrong(where, "properties must be an object of schemas");
    for (const std::string& name : required) {
      if (!properties->contains(name)) return NotDefined(name, where);
    }
    if (const ordered_json* others = Find(schema, "additionalProperties")) {
      // Looked at for what is wrong with it, though none are written.
      if (!others->is_boolean()) {
        RENGA_RETURN_IF_ERROR(
            Value(*others, absl::StrCat(where, "/additionalProperties")).status());
      }
    }
    std::vector<Member> members;
    for (const auto& [name, value] : properties->items()) {
      const std::string place = absl::StrCat(where, "/properties/",
                                             absl::StrReplaceAll(name, {{"~", "~0"}, {"/", "~1"}}));
      RENGA_ASSIGN_OR_RETURN(Expression expression, Value(value, place));
      Expression member = Sequence({Text(absl::StrCat(Dump(ordered_json(name)), ":")),
                                    Call("space"), std::move(expression), Call("space")});
      const bool must = std::find(required.begin(), required.end(), name) != required.end();
      members.push_back({AddRule(absl::StrCat("schema ", place), std::move(member)), must});
    }
    return Sequence({Text("{"), Call("space"), Members(members, where), Text("}")});
  }

  static absl::Status NotDefined(const std::string& name, const std::string& where) {
    return Wrong(where, absl::StrCat("required names ", absl::CHexEscape(name.substr(0, 80)),
                                     ", which is not one of the properties"));
  }

  static absl::StatusOr<std::vector<std::string>> Required(const ordered_json& schema,
                                                           const std::string& where) {
    std::vector<std::string> names;
    const ordered_json* list = Find(schema, "required");
    if (list == nullptr) return names;
    if (!list->is_array()) return Wrong(where, "required must be an array of names");
    for (const ordered_json& name : *list) {
      if (!name.is_string()) return Wrong(where, "required must be an array of names");
      names.push_back(name.get<std::string>());
    }
    return names;
  }

  // An object without properties of its own.
  absl::StatusOr<Expression> Map(const ordered_json& schema, const std::string& where) {
    const ordered_json* others = Find(schema, "additionalProperties");
    if (others == nullptr || (others->is_boolean() && others->get<bool>())) return Call("object");
    if (others->is_boolean()) return Sequence({Text("{"), Call("space"), Text("}")});
    const std::string place = absl::StrCat(where, "/additionalProperties");
    RENGA_ASSIGN_OR_RETURN(Expression value, Value(*others, place));
    const int64_t member = AddRule(
        absl::StrCat("schema ", place),
        Sequence({Call("string"), Text(":"), Call("space"), std::move(value), Call("space")}));
    Expression more = Sequence({Text(","), Call("space"), RuleCall(member)});
    Expression list =
        Sequence({RuleCall(member), Repeat(std::move(more), 0, Expression::kNoLimit)});
    return Sequence({Text("{"), Call("space"), Optional(std::move(list)), Text("}")});
  }

  // From the last one forwards: what may follow when some member was written, and what when none
  // was. As rules, so that many optional members take little room.
  Expression Members(const std::vector<Member>& members, const std::string& where) {
    Expression after_some = Text("");
    Expression after_none = Text("");
    for (size_t i = members.size(); i-- > 0;) {
      const auto& [rule, required] = members[i];
      Expression with = Sequence({RuleCall(rule), after_some});
      Expression more = Sequence({Text(","), Call("space"), RuleCall(rule)});
      after_none = required ? std::move(with) : Choice({std::move(with), std::move(after_none)});
      if (!required) more = Optional(std::move(more));
      after_some = RuleCall(AddRule(absl::StrCat("schema ", where, " from member ", i),
                                    Sequence({std::move(more), std::move(after_some)})));
      after_none = RuleCall(
          AddRule(absl::StrCat("schema ", where, " from first member ", i), std::move(after_none)));
    }
    return after_none;
  }

  const ordered_json& root_;
  RuleSet rules_;
  absl::flat_hash_map<std::string, int64_t> by_pointer_;
  int depth_ = 0;
};

}  // namespace

absl::StatusOr<RuleSet> ParseJsonSchema(absl::string_view text) {
  RENGA_ASSIGN_OR_RETURN(const ordered_json schema, ParseText(text));
  RENGA_ASSIGN_OR_RETURN(RuleSet rules, AnyJsonObject());
  return Converter(schema, std::move(rules)).Convert();
}

absl::StatusOr<RuleSet> AnyJsonObject() { return ParseGbnf(kJsonRules); }

}  // namespace renga::grammar

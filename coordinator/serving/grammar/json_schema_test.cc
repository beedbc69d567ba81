#include "coordinator/serving/grammar/json_schema.h"

#include <random>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "base/testing/status_matchers.h"
#include "coordinator/serving/grammar/automaton.h"
#include "coordinator/serving/grammar/grammar.h"
#include "coordinator/serving/grammar/testing/schema_case.h"
#include "gtest/gtest.h"
#include "nlohmann/json.hpp"

namespace renga::grammar {
namespace {

using testing::CheckRefusals;
using testing::CheckSchemaCases;
using testing::RefusedSchema;
using testing::SchemaCase;

TEST(JsonSchemaTest, AllowsWhatTheSchemaAllows) {
  const SchemaCase cases[] = {
      {R"({"type": "string"})",
       {R"("")", R"("a\n\u00e9\ud83d\ude00 é")"},
       {"a", "\"\n\"", R"("\x")", R"("\ud83d")", R"("a)", " \"a\""}},
      {R"({"type": "integer"})", {"0", "-12", "123456789012345"}, {"01", "1.5", "+1", "1e5", ""}},
      {R"({"type": "number"})", {"0", "-1.5", "2e-7", "10.25E+3"}, {".5", "1.", "1e", "NaN"}},
      {R"({"type": ["boolean", "null"]})", {"true", "false", "null"}, {"True", "0"}},
      {R"({"enum": ["a", 1, null, {"b": [2]}]})", {"\"a\"", "1", "null", R"({"b":[2]})"}, {"2"}},
      {R"({"type": "string", "enum": ["a", 1]})", {"\"a\""}, {"1"}},
      {R"({"const": "é"})", {"\"é\""}, {"\"e\""}},
      {R"({"type": "object", "properties": {"b": {"type": "integer"}, "a": {"type": "boolean"}},
           "required": ["b", "a"], "additionalProperties": false})",
       {R"({"b":1,"a":true})", R"({ "b": 1, "a": true })", "{\n  \"b\": 1,\n  \"a\": true\n}"},
       {R"({"a":true,"b":1})", R"({"b":1})", R"({"b":1,"a":true,})", R"({"b":1,"a":true,"c":1})",
        R"({"b":1 ,,"a":true})", R"({"b":1,  "a":true})"}},
      {R"({"properties": {"a": {"const": 1}, "b": {"const": 2}, "c": {"const": 3}, "d": {"const": 4}},
           "required": ["c"]})",
       {R"({"c":3})", R"({"a":1,"c":3})", R"({"b":2,"c":3})", R"({"a":1,"b":2,"c":3,"d":4})",
        R"({"c":3,"d":4})"},
       {"{}", R"({"a":1,"b":2})", R"({,"c":3})", R"({"c":3,"a":1})", R"({"a":1"c":3})"}},
      {R"({"properties": {"a": {"const": 1}, "b": {"const": 2}}})",
       {"{}", R"({"a":1})", R"({"b":2})", R"({"a":1,"b":2})"},
       {R"({"c":1})"}},
      {R"({"type": "object"})", {"{}", R"({"x":[1,{"y":null}]})"}, {"[]", R"({x:1})"}},
      {R"({"type": "object", "additionalProperties": false})", {"{}"}, {R"({"a":1})"}},
      {R"({"type": "object", "additionalProperties": {"type": "integer"}})",
       {"{}", R"({"a":1,"b":2})"},
       {R"({"a":"b"})"}},
      {R"({"type": "array", "items": {"type": "integer"}})",
       {"[]", "[1]", "[1, 2,\n3]"},
       {"[,]", "[1,]"}},
      {R"({"items": {"const": 1}, "minItems": 2, "maxItems": 3})",
       {"[1,1]", "[1,1,1]"},
       {"[]", "[1]", "[1,1,1,1]"}},
      {R"({"items": {"const": 1}, "maxItems": 0})", {"[]"}, {"[1]"}},
      {R"({"items": {"const": 1}, "minItems": 1})", {"[1]", "[1,1,1]"}, {"[]"}},
      {R"({"prefixItems": [{"const": 1}, {"const": 2}], "items": false, "minItems": 1})",
       {"[1]", "[1,2]"},
       {"[]", "[2]", "[1,2,3]"}},
      {R"({"prefixItems": [{"const": 1}], "items": {"const": 7}, "minItems": 3, "maxItems": 4})",
       {"[1,7,7]", "[1,7,7,7]"},
       {"[1,7]", "[1,7,7,7,7]"}},
      {R"({"minLength": 2, "maxLength": 3})",
       {R"("ab")", R"("\u00e9ab")"},
       {R"("a")", R"("abcd")"}},
      {R"({"type": "string", "format": "date"})",
       {R"("2024-02-29")"},
       {R"("2024-13-01")", R"("x")"}},
      {R"({"type": "string", "format": "date-time"})",
       {R"("2024-02-29T23:59:59Z")", R"("2024-02-29T23:59:59.25+09:00")"},
       {R"("2024-02-29 23:59:59Z")"}},
      {R"({"type": "string", "format": "uuid"})",
       {R"("01234567-89ab-CDEF-0123-456789abcdef")"},
       {R"("0")"}},
      {R"({"anyOf": [{"type": "null"}, {"$ref": "#/$defs/a~1b"}], "$defs": {"a/b": {"const": 5}}})",
       {"null", "5"},
       {"6"}},
      {R"({"type": "object", "properties": {"next": {"anyOf": [{"type": "null"}, {"$ref": "#"}]}},
           "required": ["next"], "title": "list", "x-note": 1})",
       {R"({"next":null})", R"({"next":{"next":{"next":null}}})"},
       {R"({"next":{}})"}},
      {R"({"allOf": [{"const": 1}], "default": 1})", {"1"}, {"2"}},
      {"true", {"[1]", "\"a\""}, {"", "a"}},
      {"{}", {"null", R"({"a":[]})"}, {"nul"}},
  };
  CheckSchemaCases(cases);
}

TEST(JsonSchemaTest, RefusesWhatItDoesNotKeep) {
  std::string refs = R"({"$ref": "#/$defs/d0", "$defs": {)";
  for (int i = 0; i < 300; ++i) {
    absl::StrAppend(&refs, "\"d", i, "\": {\"items\": {\"$ref\": \"#/$defs/d", i + 1, "\"}},");
  }
  refs += R"("d300": {}}})";
  std::string prefix = R"({"prefixItems": [true)";
  for (int i = 0; i < 100; ++i) prefix += ",true";
  std::string fields = R"({"properties": {)";
  for (int i = 0; i < 5000; ++i) absl::StrAppend(&fields, "\"p", i, "\": true,");
  const RefusedSchema cases[] = {
      {"{", "not valid JSON"},
      {"[]", "schema #: expected an object"},
      {"false", "expected an object"},
      {R"({"type": "string", "contentEncoding": "a"})",
       "schema #: keyword contentEncoding is not supported"},
      {R"({"properties": {"x": {"type": "integer", "multipleOf": 3}}})",
       "schema #/properties/x: keyword multipleOf is not supported"},
      {R"({"oneOf": []})", "array of schemas"},
      {R"({"oneOf": [{}], "type": "null"})", "keyword type is not supported beside oneOf"},
      {R"({"not": {}})", "keyword not"},
      {R"({"type": "strin"})", "type must be"},
      {R"({"type": []})", "no type"},
      {R"({"anyOf": [{}], "type": "null"})", "keyword type is not supported beside anyOf"},
      {R"({"anyOf": []})", "array of schemas"},
      {R"({"allOf": [{}, {}]})", "one part only"},
      {R"({"enum": 3})", "array of values"},
      {R"({"enum": []})", "no value"},
      {R"({"type": "null", "const": 3})", "no value of its type"},
      {R"({"const": "a", "minLength": 1})", "beside const"},
      {R"({"$ref": "other.json"})", "begin with #/"},
      {R"({"$ref": "#/$defs/none"})", "names nothing"},
      {R"({"$ref": 3})", "must be a string"},
      {R"({"$ref": "#"})", "can never end"},
      {R"({"properties": {"a": {"$ref": "#"}}, "required": ["a"]})", "can never end"},
      {R"({"properties": {"a": {}}, "required": ["b"]})", "required names b"},
      {R"({"required": ["b"]})", "required names b"},
      {R"({"required": "b", "properties": {"a": {}}})", "array of names"},
      {R"({"properties": {"a": {}}, "additionalProperties": {"not": {}}})", "keyword not"},
      {R"({"items": {}, "minItems": -1})", "minItems must be"},
      {R"({"items": {}, "minItems": 3, "maxItems": 2})", "below minItems"},
      {R"({"prefixItems": [{}], "items": false, "minItems": 2})", "more than the array can have"},
      {R"({"type": "string", "minLength": 70000})", "minLength must be"},
      {R"({"type": "string", "maxLength": 1, "minLength": 2})", "below minLength"},
      {R"({"type": "string", "format": "email"})", "format is supported"},
      {R"({"items": {"type": "string", "minLength": 60000}, "minItems": 60000})", "too large"},
      {prefix + "]}", "prefixItems"},
      {fields + "\"q\": true}}", "more than 4096 fields"},
      {std::string(40, '[') + std::string(40, ']'), "nested deeper"},
      {refs, "lie in each other"},
      {std::string(kMaxSchemaBytes + 1, ' '), "the most is"},
  };
  CheckRefusals(cases);
  // A keyword of another type than the one that is asked for says nothing.
  EXPECT_OK(FromJsonSchema(R"({"properties": []  , "type": "string"})").status());
}

// Whatever way is taken through the grammar, what comes out is what was asked for.
TEST(JsonSchemaTest, EveryTextIsJsonOfTheSchema) {
  const std::string schema = R"({
    "type": "object",
    "properties": {
      "name": {"type": "string", "maxLength": 5},
      "tags": {"type": "array", "items": {"enum": ["x", "y"]}, "maxItems": 3},
      "size": {"type": ["integer", "null"]},
      "more": {"anyOf": [{"type": "number"}, {"type": "boolean"}, {"$ref": "#"}]}
    },
    "required": ["name", "more"],
    "additionalProperties": false})";
  const auto network = *FromJsonSchema(schema);
  std::mt19937_64 random(5);
  int complete = 0;
  for (int round = 0; round < 300; ++round) {
    Automaton automaton(network);
    StateId state = *automaton.Start();
    std::string text;
    while (automaton.GoesOn(state) && text.size() < 4000) {
      std::vector<uint8_t> bytes;
      for (int byte = 0; byte < 256; ++byte) {
        const auto b = static_cast<uint8_t>(byte);
        // Mostly letters that can be read, and quotes.
        const bool rare = byte < 32 || byte > 126 || byte == '\\';
        if ((!rare || random() % 64 == 0) && automaton.Next(state, b) != Automaton::kDead) {
          bytes.push_back(b);
          if (b == '"') bytes.insert(bytes.end(), 20, b);
        }
      }
      if (bytes.empty()) continue;
      const uint8_t byte = bytes[random() % bytes.size()];
      text += static_cast<char>(byte);
      state = automaton.Next(state, byte);
      ASSERT_NE(state, Automaton::kDead);
    }
    ASSERT_OK(automaton.status());
    if (!automaton.Accepts(state)) continue;
    ++complete;
    const auto value = nlohmann::ordered_json::parse(text, nullptr, false);
    for (const auto* at = &value; at->is_object(); at = &(*at)["more"]) {
      ASSERT_TRUE((*at)["name"].is_string()) << text;
      ASSERT_TRUE(at->contains("more")) << text;
      ASSERT_LE(at->value("tags", nlohmann::ordered_json::array()).size(), 3U) << text;
      ASSERT_EQ(at->begin().key(), "name") << text;
    }
    ASSERT_TRUE(value.is_object()) << text;
  }
  EXPECT_GT(complete, 100);
}

}  // namespace
}  // namespace renga::grammar

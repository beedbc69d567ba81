#include "coordinator/serving/grammar/exclusive_branches.h"

#include <string>

#include "absl/strings/str_cat.h"
#include "coordinator/serving/grammar/testing/schema_case.h"
#include "gtest/gtest.h"

namespace renga::grammar {
namespace {

using testing::CheckRefusals;
using testing::CheckSchemaCases;
using testing::RefusedSchema;
using testing::SchemaCase;

TEST(ExclusiveBranchesTest, OneOfAllowsWhatItsBranchesDo) {
  const SchemaCase cases[] = {
      {R"({"oneOf": [{"type": "null"}, {"type": "integer", "minimum": 3}, {"type": ["string", "array"]}]})",
       {"null", "3", "\"a\"", "[]"},
       {"2", "{}"}},
      {R"({"oneOf": [{}]})", {"1"}, {"x"}},
      // What says nothing of arrays may be anything.
      {R"({"oneOf": [{"type": "array", "required": [5], "properties": 3}, {"type": "null"},
                     {"type": "boolean", "required": {"a": 1}, "properties": {"a": {"enum": 1}}}]})",
       {"[]", "true"},
       {"{}"}},
      // Values of an enumeration with a title each.
      {R"({"oneOf": [{"const": 1, "title": "one"}, {"enum": [2, "a"]}, {"type": "string", "const": "1"}]})",
       {"1", "2", "\"a\"", "\"1\""},
       {"3"}},
      {R"({"oneOf": [{"type": "object", "properties": {"kind": {"const": "a"}, "x": {"const": 1}},
                      "required": ["x", "kind"]},
                     {"type": ["object", "null"], "required": ["kind", "x"],
                      "properties": {"kind": {"enum": ["b", "c"]}, "x": {"const": 1}}}]})",
       {R"({"kind":"a","x":1})", R"({"kind":"b","x":1})", "null"},
       {R"({"kind":"d","x":1})", R"({"x":1})"}},
      // As OpenAPI's clients send tagged unions, one of them holding itself.
      {R"({"oneOf": [{"$ref": "#/$defs/cat"}, {"allOf": [{"$ref": "#/$defs/dog"}]}, {"type": "null"}],
           "discriminator": {"propertyName": "kind", "mapping": {"cat": "#/$defs/cat"}},
           "$defs": {"cat": {"type": "object", "required": ["kind"],
                             "properties": {"kind": {"const": "cat"}, "next": {"$ref": "#"}}},
                     "dog": {"type": "object", "required": ["kind"],
                             "properties": {"kind": {"type": "string", "enum": ["dog"]}}}}})",
       {R"({"kind":"cat"})", R"({"kind":"cat","next":{"kind":"dog"}})", "null"},
       {R"({"kind":"cow"})", R"({"kind":"dog","next":null})"}},
  };
  CheckSchemaCases(cases);
}

TEST(ExclusiveBranchesTest, RefusesBranchesThatMayBothHold) {
  const auto objects = [](const std::string& a, const std::string& b) {
    return absl::StrCat(R"({"oneOf": [{"type": "object", )", a, R"(}, {"type": "object", )", b,
                        "}]}");
  };
  std::string many = R"({"oneOf": [{"const": -1})";
  for (int i = 0; i < 64; ++i) absl::StrAppend(&many, ", {\"const\": ", i, "}");
  std::string long_list = R"({"oneOf": [{"const": "a"}, {"enum": [-1)";
  for (int i = 0; i < 200; ++i) absl::StrAppend(&long_list, ", \"", i, "\"");
  const RefusedSchema cases[] = {
      {R"({"oneOf": [{"type": "null"}, {"type": "number"}, {"type": "integer"}]})",
       "schema #/oneOf: branches 1 and 2 do not visibly exclude each other; write anyOf"},
      {R"({"oneOf": [{"type": "null"}, {}]})", "branches 0 and 1"},
      {R"({"oneOf": [{"type": "null"}, true]})", "branches 0 and 1"},
      // Without a type the second one holds for strings as well.
      {R"({"oneOf": [{"type": "string"}, {"properties": {"a": true}}]})", "branches 0 and 1"},
      {R"({"oneOf": [{"const": 1}, {"const": 1.0}]})", "branches 0 and 1"},
      {R"({"oneOf": [{"const": {"a": 1, "b": 2}}, {"const": {"b": 2, "a": 1}}]})",
       "branches 0 and 1"},
      {R"({"oneOf": [{"enum": [1, 2]}, {"enum": [2, 3]}]})", "branches 0 and 1"},
      {R"({"oneOf": [{"const": 1}, {"type": "integer", "maximum": 0}]})", "branches 0 and 1"},
      {R"({"oneOf": [{"type": "null"}, {"anyOf": [{"type": "string"}]}]})", "branches 0 and 1"},
      {R"({"oneOf": [{"$ref": "#/$defs/a"}, {"$ref": "#/$defs/a"}], "$defs": {"a": {"type": "null"}}})",
       "branches 0 and 1"},
      // The property may be missing.
      {objects(R"("properties": {"k": {"const": 1}}, "required": ["k"])",
               R"("properties": {"k": {"const": 2}})"),
       "branches 0 and 1"},
      {objects(R"("properties": {"k": {"enum": [1, 2]}}, "required": ["k"])",
               R"("properties": {"k": {"enum": [2, 3]}}, "required": ["k"])"),
       "branches 0 and 1"},
      {objects(R"("properties": {"k": {"const": 1}}, "required": ["k"])",
               R"("properties": {"l": {"const": 2}}, "required": ["l"])"),
       "branches 0 and 1"},
      {many + "]}", "oneOf has 65 branches"},
      {long_list + "]}]}", "branches 0 and 1"},
      {R"({"oneOf": [{"not": {}}]})", "schema #/oneOf/0: keyword not"},
      {R"({"oneOf": {}})", "array of schemas"},
  };
  CheckRefusals(cases);
}

}  // namespace
}  // namespace renga::grammar

// Grammars and JSON schemas as users send them: any text is understood or refused within bounded
// time and memory, and what is understood can be walked.
//
// An input is a kind (even: GBNF; odd: a JSON schema), the number of bytes that are walked, these
// bytes, and the text.
#include <string>
#include <vector>

#include "absl/strings/string_view.h"
#include "coordinator/serving/grammar/automaton.h"
#include "coordinator/serving/grammar/grammar.h"
#include "tests/fuzz/fuzz_target.h"
#include "tests/fuzz/input_reader.h"

namespace renga::fuzz {
namespace {

void Examine(absl::string_view input) {
  InputReader reader(input);
  const bool schema = reader.Byte() % 2 == 1;
  const absl::string_view walked = reader.Text(reader.Byte());
  const absl::string_view text = reader.Rest();
  const auto network = schema ? grammar::FromJsonSchema(text) : grammar::FromGbnf(text);
  if (!network.ok()) {
    Require(!network.status().message().empty());
    return;
  }
  Require((*network)->nodes.size() <= static_cast<size_t>(grammar::kMaxNodes));
  grammar::Automaton automaton(*network);
  auto start = automaton.Start();
  Require(start.ok());
  grammar::StateId state = *start;
  // Something is in every grammar.
  Require(automaton.Accepts(state) || automaton.GoesOn(state));
  for (const char byte : walked) {
    const grammar::StateId next = automaton.Next(state, static_cast<uint8_t>(byte));
    // The same way again leads to the same place.
    Require(automaton.Next(state, static_cast<uint8_t>(byte)) == next || !automaton.status().ok());
    if (next == grammar::Automaton::kDead) break;
    Require(automaton.Accepts(next) || automaton.GoesOn(next));
    state = byte % 4 == 0 ? automaton.KeepOnly(next) : next;
  }
  Require(automaton.state_count() <= grammar::Automaton::kMostStates);
}

std::string Input(bool schema, const std::string& walked, const std::string& text) {
  return std::string(1, schema ? '\1' : '\0') + static_cast<char>(walked.size()) + walked + text;
}

}  // namespace

std::vector<std::string> Seeds() {
  return {
      Input(false, "ab\xC3\xA9 (x)",
            R"gbnf(root ::= [a-b]+ "\u00e9" (" " pair)* # end
pair ::= "(" (pair | [^()\n]){0,3} ")")gbnf"),
      Input(false, "aab", "root ::= a{1,3} | \"b\" . \na ::= \"a\" | [\\x41-\\x43]"),
      Input(false, "aaa", "root ::= \"a\" root root | \"b\""),
      Input(true, R"({"name":"x", "tags":[1,)",
            R"({"type": "object", "properties": {"name": {"type": "string", "maxLength": 9},
                "tags": {"type": "array", "items": {"anyOf": [{"type": "integer"},
                {"$ref": "#/$defs/t"}]}, "minItems": 1, "maxItems": 4}, "when": {"format": "date"}},
                "required": ["name"], "additionalProperties": false,
                "$defs": {"t": {"enum": ["a", null, 1.5]}}})"),
      Input(true, R"([-12.5,7,"a-)",
            R"json({"prefixItems": [{"type": "number", "minimum": -12.75, "exclusiveMaximum": 1e3},
                {"type": "integer", "exclusiveMinimum": -9223372036854775808, "maximum": 7},
                {"pattern": "^(?:a|[^\\d\"])-+?\\u00e9$|^b", "minLength": 3}]})json"),
      Input(
          true, R"({"kind":"b",)",
          R"({"oneOf": [{"type": "object", "properties": {"kind": {"const": "a"}}, "required": ["kind"]},
                {"allOf": [{"$ref": "#/$defs/b"}]}, {"type": "null"}, {"enum": [1, 2]}],
                "$defs": {"b": {"type": "object", "required": ["kind"],
                "properties": {"kind": {"enum": ["b", "c"]}, "next": {"$ref": "#"}}}}})"),
      Input(true, R"("ab)", R"json({"pattern": "^[a-c\\n\\-]{2,}(x|.y)*$"})json"),
      Input(true, R"({"next":{)",
            R"({"properties": {"next": {"$ref": "#"}, "list": {"prefixItems": [true, {"const": {}}],
                "items": false}}, "allOf": [], "title": "x"})"),
  };
}

}  // namespace renga::fuzz

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  renga::fuzz::Examine(absl::string_view(reinterpret_cast<const char*>(data), size));
  return 0;
}

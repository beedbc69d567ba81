#include "coordinator/serving/grammar/json_rules.h"

#include "absl/strings/string_view.h"
#include "coordinator/serving/grammar/gbnf_parser.h"

namespace renga::grammar {
namespace {

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

}  // namespace

absl::StatusOr<RuleSet> AnyJsonObject() { return ParseGbnf(kJsonRules); }

}  // namespace renga::grammar

// Grammars as people write them for local models: GBNF.
//
//   root   ::= item+                 # every grammar has a rule named root
//   item   ::= "- " [^\n]+ "\n"      # texts, and classes of characters
//   answer ::= ("yes" | "no") "."?   # groups; * + ? {3} {2,} {0,5} repeat what stands before them
//
// Texts and classes know \n \r \t \" \\ \[ \] \- \^ and \xHH \uHHHH \UHHHHHHHH for code points; a
// dot is any character. Names are letters, digits, - and _. A rule goes on until the next name with
// ::= behind it, so that lines may be broken anywhere.
#ifndef RENGA_COORDINATOR_SERVING_GRAMMAR_GBNF_PARSER_H_
#define RENGA_COORDINATOR_SERVING_GRAMMAR_GBNF_PARSER_H_

#include <cstddef>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "coordinator/serving/grammar/expression.h"

namespace renga::grammar {

inline constexpr size_t kMaxGrammarBytes = 256 << 10;

// kInvalidArgument names the line and what is wrong there. Every rule that is named is there, and
// `root` is the root.
absl::StatusOr<RuleSet> ParseGbnf(absl::string_view text);

}  // namespace renga::grammar

#endif  // RENGA_COORDINATOR_SERVING_GRAMMAR_GBNF_PARSER_H_

// Patterns of JSON schemas: the regular part of ECMA-262's regular expressions.
#ifndef RENGA_COORDINATOR_SERVING_GRAMMAR_PATTERN_H_
#define RENGA_COORDINATOR_SERVING_GRAMMAR_PATTERN_H_

#include <cstdint>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "coordinator/serving/grammar/expression.h"

namespace renga::grammar {

// What stands between the quotes of JSON strings that the pattern matches somewhere, and that have
// `least` to `most` characters (most: or kNoLimit). Understood are characters and their escapes,
// . \d \w \s \D \W \S, classes, groups, alternatives, the repetitions ? * + {m} {m,} {m,n} (also
// with a ? behind, which says nothing here), and ^ and $ at the two ends of the pattern or of its
// outermost alternatives. Characters are code points, as with ECMA-262's flag u.
//
// Lengths are kept where they follow from the pattern or where one repetition decides them, as in
// ^[a-z][a-z0-9]*$; any other pattern is refused beside them.
//
// `rules` are those of JSON (json_rules.h), others are added. kInvalidArgument with a sentence: the
// pattern is wrong or not understood, or no such string has such a length. How much the repetitions
// of a pattern may add up to is Compile's to say (network.h).
absl::StatusOr<Expression> StringsMatching(absl::string_view pattern, int64_t least, int64_t most,
                                           RuleSet& rules);

}  // namespace renga::grammar

#endif  // RENGA_COORDINATOR_SERVING_GRAMMAR_PATTERN_H_

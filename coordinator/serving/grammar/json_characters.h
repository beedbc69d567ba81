// Characters as they stand in the strings of JSON.
#ifndef RENGA_COORDINATOR_SERVING_GRAMMAR_JSON_CHARACTERS_H_
#define RENGA_COORDINATOR_SERVING_GRAMMAR_JSON_CHARACTERS_H_

#include <vector>

#include "coordinator/serving/grammar/expression.h"

namespace renga::grammar {

// One of the characters, at least one: as itself where JSON allows that, else in one way, the
// shortest: \" \\ \b \f \n \r \t, \u001f. What would be long is a rule, shared by all equal
// classes.
Expression JsonCharacter(std::vector<CodeRange> ranges, RuleSet& rules);

}  // namespace renga::grammar

#endif  // RENGA_COORDINATOR_SERVING_GRAMMAR_JSON_CHARACTERS_H_

#include "coordinator/serving/grammar/grammar.h"

#include "base/status_macros.h"
#include "coordinator/serving/grammar/automaton.h"
#include "coordinator/serving/grammar/gbnf_parser.h"
#include "coordinator/serving/grammar/json_rules.h"
#include "coordinator/serving/grammar/json_schema.h"

namespace renga::grammar {
namespace {

absl::StatusOr<std::shared_ptr<const Network>> Ready(const RuleSet& rules) {
  RENGA_ASSIGN_OR_RETURN(std::shared_ptr<const Network> network, Compile(rules));
  RENGA_RETURN_IF_ERROR(Automaton(network).Start().status());
  return network;
}

}  // namespace

absl::StatusOr<std::shared_ptr<const Network>> FromGbnf(absl::string_view text) {
  RENGA_ASSIGN_OR_RETURN(const RuleSet rules, ParseGbnf(text));
  return Ready(rules);
}

absl::StatusOr<std::shared_ptr<const Network>> FromJsonSchema(absl::string_view schema) {
  RENGA_ASSIGN_OR_RETURN(const RuleSet rules, ParseJsonSchema(schema));
  return Ready(rules);
}

absl::StatusOr<std::shared_ptr<const Network>> OfAnyJsonObject() {
  RENGA_ASSIGN_OR_RETURN(const RuleSet rules, AnyJsonObject());
  return Ready(rules);
}

}  // namespace renga::grammar

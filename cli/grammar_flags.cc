#include "cli/grammar_flags.h"

#include <algorithm>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "base/file.h"
#include "base/status_macros.h"
#include "coordinator/serving/grammar/gbnf_parser.h"
#include "coordinator/serving/grammar/grammar.h"
#include "coordinator/serving/grammar/json_schema.h"

namespace renga::cli {

void AddGrammarFlags(CLI::App& command, GrammarFlags& flags) {
  CLI::Option* grammar = command.add_option(
      "--grammar", flags.grammar, "File with a grammar (GBNF) of which the answer is a text");
  command
      .add_option("--json-schema", flags.json_schema,
                  "File with a JSON schema; the answer is JSON that it allows")
      ->excludes(grammar);
}

absl::StatusOr<std::shared_ptr<const grammar::Network>> ReadGrammar(const GrammarFlags& flags) {
  const bool schema = !flags.json_schema.empty();
  const std::string& path = schema ? flags.json_schema : flags.grammar;
  if (path.empty()) return std::shared_ptr<const grammar::Network>();
  constexpr size_t kMostBytes = std::max(grammar::kMaxSchemaBytes, grammar::kMaxGrammarBytes);
  RENGA_ASSIGN_OR_RETURN(const std::string text, base::ReadFile(path, kMostBytes));
  auto network = schema ? grammar::FromJsonSchema(text) : grammar::FromGbnf(text);
  if (network.ok()) return network;
  return absl::Status(network.status().code(),
                      absl::StrCat(path, ": ", network.status().message()));
}

}  // namespace renga::cli

// Flags that say what an answer is to look like.
#ifndef RENGA_CLI_GRAMMAR_FLAGS_H_
#define RENGA_CLI_GRAMMAR_FLAGS_H_

#include <memory>
#include <string>

#include "CLI/App.hpp"
#include "absl/status/statusor.h"
#include "coordinator/serving/grammar/network.h"

namespace renga::cli {

struct GrammarFlags {
  std::string grammar;      // files; empty: none
  std::string json_schema;  // not both
};

// Adds --grammar and --json-schema.
void AddGrammarFlags(CLI::App& command, GrammarFlags& flags);

// Null without a flag. kInvalidArgument names the file and what is wrong in it; errors of reading.
absl::StatusOr<std::shared_ptr<const grammar::Network>> ReadGrammar(const GrammarFlags& flags);

}  // namespace renga::cli

#endif  // RENGA_CLI_GRAMMAR_FLAGS_H_

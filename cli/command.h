// The pieces of the `renga` command: each subcommand is one file that adds itself to the parser
// and leaves behind what to run. Argument parsing and printing only; everything else lives below.
#ifndef RENGA_CLI_COMMAND_H_
#define RENGA_CLI_COMMAND_H_

#include <functional>

#include "CLI/App.hpp"
#include "absl/status/status.h"

namespace renga::cli {

// What the parsed subcommand wants to run; set by its callback.
struct Invocation {
  std::function<absl::Status()> action;
};

void AddRunCommand(CLI::App& app, Invocation& invocation);
void AddUpCommand(CLI::App& app, Invocation& invocation);
void AddServeCommand(CLI::App& app, Invocation& invocation);
void AddWorkerCommand(CLI::App& app, Invocation& invocation);
void AddPlanCommand(CLI::App& app, Invocation& invocation);
void AddStatusCommand(CLI::App& app, Invocation& invocation);
void AddBenchCommand(CLI::App& app, Invocation& invocation);
void AddTokenizeCommand(CLI::App& app, Invocation& invocation);
void AddLogitsCommand(CLI::App& app, Invocation& invocation);
void AddRegionsCommand(CLI::App& app, Invocation& invocation);
void AddPerplexityCommand(CLI::App& app, Invocation& invocation);

}  // namespace renga::cli

#endif  // RENGA_CLI_COMMAND_H_

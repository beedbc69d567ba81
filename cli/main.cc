// The `renga` command.
#include <malloc.h>

#include <cstdio>
#include <exception>

#include "CLI/App.hpp"
#include "CLI/Config.hpp"
#include "CLI/Formatter.hpp"
#include "absl/status/status.h"
#include "cli/command.h"
#include "cli/interrupt.h"
#include "transport/dialer.h"
#include "transport/grpc_process.h"

namespace {

constexpr int kUsageExitCode = 2;
constexpr int kInterruptedExitCode = 130;

int ExitCode(const absl::Status& status) {
  if (status.ok()) return 0;
  if (absl::IsCancelled(status)) return kInterruptedExitCode;
  const absl::string_view message = status.message();
  std::fprintf(stderr, "renga: %.*s\n", static_cast<int>(message.size()), message.data());
  return 1;
}

int Main(int argc, char** argv) {
  // Many malloc arenas would let every gRPC thread keep freed memory that counts against what the
  // user offered.
  mallopt(M_ARENA_MAX, 2);
  renga::cli::StartInterruptThread();

  CLI::App app("renga: several small machines run one language model together");
  app.require_subcommand(1);
  app.set_version_flag("--version", std::string(renga::transport::BuildVersion()));
  app.footer(
      "Example:\n  renga run model.gguf \"Why is the sky blue?\"\n"
      "Each command has its own --help.");
  renga::cli::Invocation invocation;
  renga::cli::AddRunCommand(app, invocation);
  renga::cli::AddServeCommand(app, invocation);
  renga::cli::AddUpCommand(app, invocation);
  renga::cli::AddWorkerCommand(app, invocation);
  renga::cli::AddPlanCommand(app, invocation);
  renga::cli::AddStatusCommand(app, invocation);
  renga::cli::AddBenchCommand(app, invocation);
  renga::cli::AddTokenizeCommand(app, invocation);
  renga::cli::AddLogitsCommand(app, invocation);
  renga::cli::AddPerplexityCommand(app, invocation);
  renga::cli::AddRegionsCommand(app, invocation);
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    return app.exit(error) == 0 ? 0 : kUsageExitCode;
  }
  const renga::transport::GrpcProcess grpc;
  return ExitCode(invocation.action());
}

}  // namespace

int main(int argc, char** argv) {
  try {
    return Main(argc, argv);
  } catch (const std::exception& error) {
    std::fprintf(stderr, "renga: internal error: %s\n", error.what());
    return 1;
  }
}

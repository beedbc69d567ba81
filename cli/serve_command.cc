// renga serve: an OpenAI-compatible server on this machine alone.
#include <cstdio>
#include <memory>
#include <string>

#include "absl/synchronization/notification.h"
#include "base/status_macros.h"
#include "cli/cluster_flags.h"
#include "cli/command.h"
#include "cli/http_flags.h"
#include "cli/interrupt.h"
#include "cli/local_cluster.h"

namespace renga::cli {
namespace {

struct ServeFlags {
  ClusterFlags cluster;
  HttpFlags http;
};

absl::Status Serve(const ServeFlags& flags) {
  RENGA_ASSIGN_OR_RETURN(const auto cluster, LocalCluster::Start(flags.cluster));
  if (!flags.cluster.quiet) {
    SayApproximationCost(cluster->coordinator().store(), flags.cluster.plan.approximation,
                         flags.cluster.model);
  }
  RENGA_ASSIGN_OR_RETURN(const auto server,
                         StartHttp(flags.http, flags.cluster.model, cluster->coordinator()));
  RENGA_ASSIGN_OR_RETURN(const std::string url, ChatUrl(flags.http, *server));
  std::printf("ready: chat at %s\n", url.c_str());
  std::fflush(stdout);
  absl::Notification interrupted;
  const InterruptScope interrupt([&interrupted] { interrupted.Notify(); });
  interrupted.WaitForNotification();
  server->Stop();
  return absl::OkStatus();
}

}  // namespace

void AddServeCommand(CLI::App& app, Invocation& invocation) {
  auto flags = std::make_shared<ServeFlags>();
  flags->cluster.plan.sequences = kDefaultServedSequences;
  CLI::App* command =
      app.add_subcommand("serve", "Start an OpenAI-compatible server on this machine alone");
  command->footer("Example:\n  renga serve model.gguf --http 127.0.0.1:8080 --workers 2");
  AddClusterFlags(*command, flags->cluster);
  command
      ->add_option("--sequences", flags->cluster.plan.sequences,
                   "Conversations answered at the same time")
      ->capture_default_str()
      ->check(CLI::Range(1, 4096));
  AddReplicasFlag(*command, flags->cluster.plan);
  AddHttpFlags(*command, flags->http);
  command->callback(
      [flags, &invocation] { invocation.action = [flags] { return Serve(*flags); }; });
}

}  // namespace renga::cli

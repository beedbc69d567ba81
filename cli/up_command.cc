// renga up: a coordinator for the LAN, with a worker of its own if wanted.
#include <cstdio>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/synchronization/notification.h"
#include "base/file.h"
#include "base/status_macros.h"
#include "cli/child_process.h"
#include "cli/cluster_flags.h"
#include "cli/command.h"
#include "cli/coordinator.h"
#include "cli/device_flags.h"
#include "cli/draft.h"
#include "cli/http_flags.h"
#include "cli/interrupt.h"
#include "cli/lan_address.h"
#include "cli/state_printer.h"
#include "transport/join_line.h"

namespace renga::cli {
namespace {

struct UpFlags {
  std::string model;
  std::string listen = "0.0.0.0:7400";
  DeviceFlags devices = {.device = "auto", .memory = "", .host_memory = "auto"};
  std::string state;
  int threads = 0;
  int wait_for = 0;
  bool insecure = false;
  bool quiet = false;
  bool verbose = false;
  PlanFlags plan;
  HttpFlags http;
};

absl::StatusOr<std::unique_ptr<Coordinator>> StartCoordinator(
    const UpFlags& flags, std::unique_ptr<Draft> draft, std::shared_ptr<StatePrinter> printer) {
  CoordinatorOptions options;
  options.draft = std::move(draft);
  options.model_path = flags.model;
  options.plan = flags.plan;
  options.expected_workers = flags.wait_for;
  options.listen_address = flags.listen;
  options.measure_links = true;
  options.on_change = [printer](const cluster::ClusterStatus& status) { printer->Show(status); };
  options.on_hash_progress = [printer](int64_t done, int64_t total) {
    printer->ShowReading(done, total);
  };
  options.state_directory =
      flags.state.empty() ? base::StateDirectory() + "/coordinator" : flags.state;
  if (flags.insecure) {
    RENGA_RETURN_IF_ERROR(base::CreateDirectories(options.state_directory));
  } else {
    RENGA_ASSIGN_OR_RETURN(options.authority,
                           transport::Authority::LoadOrCreate(options.state_directory));
  }
  return Coordinator::Start(std::move(options));
}

std::string JoinLine(const UpFlags& flags, const Coordinator& coordinator,
                     const std::string& host) {
  const std::string address = absl::StrCat(host, ":", coordinator.port());
  if (coordinator.authority() == nullptr)
    return absl::StrCat("renga worker ", address, " --insecure");
  return transport::FormatJoinLine(address,
                                   {.token = coordinator.authority()->token(),
                                    .fingerprint = coordinator.authority()->fingerprint()});
}

// This machine's own offer: a worker process like any other.
absl::StatusOr<std::unique_ptr<ChildProcess>> StartOwnWorker(
    const UpFlags& flags, const Coordinator& coordinator, const std::string& host,
    const std::vector<DeviceOffer>& offers) {
  RENGA_ASSIGN_OR_RETURN(const std::string executable, OwnExecutablePath());
  std::vector<std::string> arguments = {"worker",   absl::StrCat(host, ":", coordinator.port()),
                                        "--device", offers.front().device,
                                        "--memory", absl::StrCat(offers.front().memory_bytes),
                                        "--listen", absl::StrCat(host, ":0"),
                                        "--model",  flags.model,
                                        "--quiet"};
  if (offers.size() > 1) {
    arguments.insert(arguments.end(), {"--host-memory", absl::StrCat(offers.back().memory_bytes)});
  }
  if (flags.threads > 0) {
    arguments.insert(arguments.end(), {"--threads", absl::StrCat(flags.threads)});
  }
  std::vector<std::string> environment;
  if (coordinator.authority() == nullptr) {
    arguments.emplace_back("--insecure");
  } else {
    environment.push_back(absl::StrCat(
        "RENGA_JOIN_TOKEN=",
        transport::FormatJoinToken({.token = coordinator.authority()->token(),
                                    .fingerprint = coordinator.authority()->fingerprint()})));
  }
  return ChildProcess::Start(executable, arguments, environment);
}

absl::StatusOr<std::unique_ptr<Draft>> StartDraft(const UpFlags& flags) {
  if (flags.plan.draft_model.empty()) return nullptr;
  ClusterFlags large;
  large.threads = flags.threads;
  large.plan = flags.plan;
  large.quiet = flags.quiet;
  return Draft::Start(large);
}

absl::Status Up(const UpFlags& flags) {
  RENGA_ASSIGN_OR_RETURN(std::unique_ptr<Draft> draft, StartDraft(flags));
  ApplyVerbosity(flags.quiet, flags.verbose);
  RENGA_ASSIGN_OR_RETURN(const transport::HostPort listen, transport::ParseHostPort(flags.listen));
  RENGA_ASSIGN_OR_RETURN(const std::vector<DeviceOffer> offers, OffersOf(flags.devices));
  auto printer = std::make_shared<StatePrinter>(flags.quiet);
  RENGA_ASSIGN_OR_RETURN(const auto coordinator,
                         StartCoordinator(flags, std::move(draft), printer));
  RENGA_ASSIGN_OR_RETURN(const auto server, StartHttp(flags.http, flags.model, *coordinator));
  if (!flags.quiet) {
    SayApproximationCost(coordinator->store(), flags.plan.approximation, flags.model);
  }
  const std::string host = ReachableHost(listen.host);
  RENGA_ASSIGN_OR_RETURN(const std::string url, ChatUrl(flags.http, *server));
  std::printf("join with:  %s\n", JoinLine(flags, *coordinator, host).c_str());
  std::printf("chat at:    %s\n", url.c_str());
  std::fflush(stdout);
  std::unique_ptr<ChildProcess> own_worker;
  if (offers.front().memory_bytes > 0) {
    RENGA_ASSIGN_OR_RETURN(own_worker, StartOwnWorker(flags, *coordinator, host, offers));
  }
  absl::Notification interrupted;
  const InterruptScope interrupt([&interrupted] { interrupted.Notify(); });
  interrupted.WaitForNotification();
  server->Stop();
  return absl::OkStatus();
}

}  // namespace

void AddUpCommand(CLI::App& app, Invocation& invocation) {
  auto flags = std::make_shared<UpFlags>();
  CLI::App* command = app.add_subcommand(
      "up", "Start a coordinator and print the line to type on each other machine");
  command->footer("Example:\n  renga up model.gguf --memory 3GiB --http 0.0.0.0:8080");
  command->add_option("model", flags->model, "GGUF file")->required();
  command->add_option("--listen", flags->listen, "HOST:PORT where workers join")
      ->capture_default_str();
  command->add_option("--memory", flags->devices.memory,
                      "Memory this machine itself offers, of its card if it has one; 0: none "
                      "(default: nine tenths of what is available; of a card, all that is free but "
                      "128 MiB)");
  AddDeviceFlags(*command, flags->devices);
  command->add_option("-t,--threads", flags->threads, "Threads of this machine's own worker")
      ->check(CLI::Range(1, 1024));
  command
      ->add_option("--wait-for", flags->wait_for,
                   "Plan when this many workers have joined (default: as soon as the model fits)")
      ->check(CLI::Range(0, 1024));
  command->add_option("--state", flags->state, "Folder of the cluster's authority and token");
  command->add_flag("--insecure", flags->insecure, "Plain text between workers; loopback only");
  AddPlanFlags(*command, flags->plan, /*with_sequences=*/true);
  AddReplicasFlag(*command, flags->plan);
  AddApproximationFlags(*command, flags->plan.approximation);
  AddDraftModelFlag(*command, flags->plan);
  AddHttpFlags(*command, flags->http);
  AddVerbosityFlags(*command, flags->quiet, flags->verbose);
  command->callback([flags, &invocation] { invocation.action = [flags] { return Up(*flags); }; });
}

}  // namespace renga::cli

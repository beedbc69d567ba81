#include "cli/local_cluster.h"

#include <algorithm>
#include <cstdio>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "base/file.h"
#include "base/status_macros.h"
#include "base/thread_pool.h"
#include "cli/interrupt.h"
#include "cli/lan_address.h"
#include "cli/progress_printer.h"
#include "transport/join_line.h"

namespace renga::cli {
namespace {

constexpr char kInProcessName[] = "local";

std::function<void(const cluster::ClusterStatus&)> ShowLoading(
    std::shared_ptr<ProgressPrinter> progress) {
  return [progress = std::move(progress)](const cluster::ClusterStatus& status) {
    if (status.state != cluster::ClusterState::kLoading) return progress->Finish();
    int64_t done = 0;
    int64_t total = 0;
    for (const cluster::WorkerStatus& worker : status.workers) {
      done += worker.load.done;
      total += worker.load.total;
    }
    progress->Update(done, total);
  };
}

// What each of the local workers offers.
std::vector<int64_t> OfferedBytes(const std::vector<DeviceOffer>& offers, int workers) {
  std::vector<int64_t> bytes(static_cast<size_t>(std::max(1, workers)),
                             offers.front().memory_bytes);
  for (size_t i = 1; i < offers.size(); ++i) bytes.push_back(offers[i].memory_bytes);
  return bytes;
}

}  // namespace

absl::StatusOr<std::unique_ptr<LocalCluster>> LocalCluster::Start(const ClusterFlags& flags) {
  // What goes wrong here is the command's own error: the log need not say it too.
  ApplyVerbosity(/*quiet=*/!flags.verbose, flags.verbose);
  CoordinatorOptions options;
  if (!flags.plan.draft_model.empty()) {
    RENGA_ASSIGN_OR_RETURN(options.draft, Draft::Start(flags));
  }
  RENGA_ASSIGN_OR_RETURN(const std::vector<DeviceOffer> offers,
                         OffersOf(flags.devices, flags.workers));
  std::unique_ptr<LocalCluster> cluster(new LocalCluster);
  options.model_path = flags.model;
  options.plan = flags.plan;
  const int spares = flags.listen.empty() ? static_cast<int>(offers.size()) - 1 : 0;
  options.expected_workers = std::max(1, flags.workers) + spares;
  // Workers that are invited have their own flags.
  if (flags.lazy_head.value_or(true) && flags.listen.empty()) {
    options.screen_directory = base::CacheDirectory();
    if (!flags.lazy_head.has_value())
      options.whole_head_within = OfferedBytes(offers, flags.workers);
  }
  options.use_every_worker = true;
  options.on_change = ShowLoading(std::make_shared<ProgressPrinter>("loading", flags.quiet));
  auto hashing = std::make_shared<ProgressPrinter>("reading", flags.quiet);
  options.on_hash_progress = [hashing](int64_t done, int64_t total) {
    hashing->Update(done, total);
    if (done == total) hashing->Finish();
  };
  if (flags.workers > 0 || !flags.listen.empty()) {
    RENGA_ASSIGN_OR_RETURN(options.authority, transport::Authority::CreateEphemeral());
    options.listen_address = flags.listen.empty() ? "127.0.0.1:0" : flags.listen;
    options.measure_links = !flags.listen.empty();
  }
  RENGA_ASSIGN_OR_RETURN(cluster->coordinator_, Coordinator::Start(std::move(options)));
  if (!flags.listen.empty()) {
    RENGA_RETURN_IF_ERROR(cluster->InviteWorkers(flags));
  } else if (flags.workers > 0) {
    RENGA_RETURN_IF_ERROR(cluster->StartWorkerProcesses(flags, offers));
  } else {
    RENGA_RETURN_IF_ERROR(cluster->StartWorkersInProcess(flags, offers));
  }
  RENGA_RETURN_IF_ERROR(cluster->WaitUntilReady());
  cluster->SayWhatWasPlanned(flags);
  return cluster;
}

absl::Status LocalCluster::StartWorkersInProcess(const ClusterFlags& flags,
                                                 const std::vector<DeviceOffer>& offers) {
  for (const DeviceOffer& offer : offers) {
    worker::WorkerOptions options;
    options.name = offer.spare ? SpareName(kInProcessName) : kInProcessName;
    options.device = {.device = offer.device, .threads = flags.threads};
    options.memory_bytes = offer.memory_bytes;
    options.spare = offer.spare;
    options.advertise_host = absl::StrCat("inproc:", options.name);
    options.coordinator = {
        .address = absl::StrCat("inproc:", std::string(transport::kCoordinatorName)),
        .name = std::string(transport::kCoordinatorName)};
    options.dialer = &coordinator_->dialer();
    options.local_model_path = flags.model;
    if (flags.keep_packed) options.packed_directory = base::CacheDirectory();
    if (coordinator_->uses_screen()) options.screen_directory = base::CacheDirectory();
    // Nothing is divided by speed where there is one device.
    options.measure_speed = offers.size() > 1;
    RENGA_ASSIGN_OR_RETURN(auto worker, worker::WorkerServer::Create(options));
    coordinator_->dialer().Register(options.name, worker->grpc_server(), worker->local_worker());
    workers_.push_back(std::move(worker));
  }
  for (const auto& worker : workers_) {
    worker->Join();
    RENGA_RETURN_IF_ERROR(worker->WaitForWelcome());
  }
  return absl::OkStatus();
}

absl::Status LocalCluster::InviteWorkers(const ClusterFlags& flags) {
  RENGA_ASSIGN_OR_RETURN(const transport::HostPort listen, transport::ParseHostPort(flags.listen));
  const transport::Authority& authority = *coordinator_->authority();
  // Not on standard output, which is for the result.
  std::fprintf(stderr, "join with:  %s\n",
               transport::FormatJoinLine(
                   absl::StrCat(ReachableHost(listen.host), ":", coordinator_->port()),
                   {.token = authority.token(), .fingerprint = authority.fingerprint()})
                   .c_str());
  return absl::OkStatus();
}

absl::Status LocalCluster::StartWorkerProcesses(const ClusterFlags& flags,
                                                const std::vector<DeviceOffer>& offers) {
  RENGA_ASSIGN_OR_RETURN(const std::string executable, OwnExecutablePath());
  const transport::Authority& authority = *coordinator_->authority();
  const std::string token = transport::FormatJoinToken(
      {.token = authority.token(), .fingerprint = authority.fingerprint()});
  const int threads =
      flags.threads > 0 ? flags.threads : std::max(1, base::UsableCpuCount() / flags.workers);
  const std::string head = coordinator_->uses_screen() ? "--lazy-head" : "--no-lazy-head";
  const std::string packed = flags.keep_packed ? "--packed-cache" : "--no-packed-cache";
  std::vector<DeviceOffer> each(static_cast<size_t>(flags.workers), offers.front());
  each.insert(each.end(), offers.begin() + 1, offers.end());
  for (size_t i = 0; i < each.size(); ++i) {
    std::vector<std::string> arguments = {
        "worker",    absl::StrCat("127.0.0.1:", coordinator_->port()),
        "--name",    absl::StrCat("worker-", i + 1),
        "--memory",  absl::StrCat(each[i].memory_bytes),
        "--threads", absl::StrCat(threads),
        "--device",  each[i].device,
        "--listen",  "127.0.0.1:0",
        "--model",   flags.model,
        "--local",   packed,
        head};
    if (each[i].spare) arguments.emplace_back("--spare");
    if (offers.size() > 1) arguments.emplace_back("--measure");
    // The token goes through the environment: arguments are visible to every user.
    RENGA_ASSIGN_OR_RETURN(
        processes_.emplace_back(),
        ChildProcess::Start(executable, arguments, {absl::StrCat("RENGA_JOIN_TOKEN=", token)}));
  }
  return absl::OkStatus();
}

absl::Status LocalCluster::WaitUntilReady() {
  bool worker_ended = false;
  const absl::Status status = coordinator_->manager().WaitUntilReady(absl::InfiniteDuration(), [&] {
    for (const auto& process : processes_) worker_ended |= !process->Running();
    return Interrupted() || worker_ended;
  });
  if (Interrupted()) return InterruptedError();
  if (worker_ended) {
    return absl::UnavailableError("a worker process ended while starting; its message is above");
  }
  return status;
}

void LocalCluster::SayWhatWasPlanned(const ClusterFlags& flags) {
  if (flags.quiet) return;
  const cluster::ClusterStatus status = coordinator_->manager().Status();
  for (const std::string& warning : status.warnings) {
    std::fprintf(stderr, "note: %s\n", warning.c_str());
  }
  for (const cluster::WorkerStatus& worker : status.workers) {
    if (worker.state != cluster::WorkerState::kIdle) continue;
    std::fprintf(stderr, "%s is idle: %s\n", worker.name.c_str(), worker.detail.c_str());
  }
}

LocalCluster::~LocalCluster() {
  // Workers first: a coordinator that goes away first would make them try to join again.
  for (auto& process : processes_) process->Terminate();
  processes_.clear();
  for (auto& worker : workers_) worker->Shutdown();
}

}  // namespace renga::cli

#include "cli/local_cluster.h"

#include <algorithm>
#include <cstdio>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/byte_size.h"
#include "base/status_macros.h"
#include "base/thread_pool.h"
#include "cli/interrupt.h"
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

}  // namespace

absl::StatusOr<int64_t> OfferedMemory(const std::string& memory, int workers) {
  if (!memory.empty()) return base::ParseByteSize(memory);
  return base::AvailableMemoryBytes() / 10 * 9 / std::max(1, workers);
}

absl::StatusOr<std::unique_ptr<LocalCluster>> LocalCluster::Start(const ClusterFlags& flags) {
  // What goes wrong here is the command's own error: the log need not say it too.
  ApplyVerbosity(/*quiet=*/!flags.verbose, flags.verbose);
  RENGA_ASSIGN_OR_RETURN(const int64_t memory_bytes, OfferedMemory(flags.memory, flags.workers));
  std::unique_ptr<LocalCluster> cluster(new LocalCluster);
  CoordinatorOptions options;
  options.model_path = flags.model;
  options.plan = flags.plan;
  options.expected_workers = std::max(1, flags.workers);
  options.use_every_worker = true;
  options.on_change = ShowLoading(std::make_shared<ProgressPrinter>("loading", flags.quiet));
  auto hashing = std::make_shared<ProgressPrinter>("reading", flags.quiet);
  options.on_hash_progress = [hashing](int64_t done, int64_t total) {
    hashing->Update(done, total);
    if (done == total) hashing->Finish();
  };
  if (flags.workers > 0) {
    RENGA_ASSIGN_OR_RETURN(options.authority, transport::Authority::CreateEphemeral());
    options.listen_address = "127.0.0.1:0";
  }
  RENGA_ASSIGN_OR_RETURN(cluster->coordinator_, Coordinator::Start(std::move(options)));
  if (flags.workers > 0) {
    RENGA_RETURN_IF_ERROR(cluster->StartWorkerProcesses(flags, memory_bytes));
  } else {
    RENGA_RETURN_IF_ERROR(cluster->StartWorkerInProcess(flags, memory_bytes));
  }
  RENGA_RETURN_IF_ERROR(cluster->WaitUntilReady());
  cluster->SayWhoIsIdle(flags);
  return cluster;
}

absl::Status LocalCluster::StartWorkerInProcess(const ClusterFlags& flags, int64_t memory_bytes) {
  worker::WorkerOptions options;
  options.name = kInProcessName;
  options.device = {.device = flags.device, .threads = flags.threads};
  options.memory_bytes = memory_bytes;
  options.advertise_host = absl::StrCat("inproc:", kInProcessName);
  options.coordinator = {
      .address = absl::StrCat("inproc:", std::string(transport::kCoordinatorName)),
      .name = std::string(transport::kCoordinatorName)};
  options.dialer = &coordinator_->dialer();
  options.local_model_path = flags.model;
  // Nothing is divided by speed here.
  options.measure_speed = false;
  RENGA_ASSIGN_OR_RETURN(worker_, worker::WorkerServer::Create(options));
  coordinator_->dialer().Register(kInProcessName, worker_->grpc_server());
  worker_->Join();
  return worker_->WaitForWelcome();
}

absl::Status LocalCluster::StartWorkerProcesses(const ClusterFlags& flags, int64_t memory_bytes) {
  RENGA_ASSIGN_OR_RETURN(const std::string executable, OwnExecutablePath());
  const transport::Authority& authority = *coordinator_->authority();
  const std::string token = transport::FormatJoinToken(
      {.token = authority.token(), .fingerprint = authority.fingerprint()});
  const int threads =
      flags.threads > 0 ? flags.threads : std::max(1, base::UsableCpuCount() / flags.workers);
  for (int i = 0; i < flags.workers; ++i) {
    // The token goes through the environment: arguments are visible to every user.
    RENGA_ASSIGN_OR_RETURN(
        processes_.emplace_back(),
        ChildProcess::Start(executable,
                            {"worker", absl::StrCat("127.0.0.1:", coordinator_->port()), "--name",
                             absl::StrCat("worker-", i + 1), "--memory", absl::StrCat(memory_bytes),
                             "--threads", absl::StrCat(threads), "--device", flags.device,
                             "--listen", "127.0.0.1:0", "--model", flags.model, "--local"},
                            {absl::StrCat("RENGA_JOIN_TOKEN=", token)}));
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

void LocalCluster::SayWhoIsIdle(const ClusterFlags& flags) {
  if (flags.quiet) return;
  for (const cluster::WorkerStatus& worker : coordinator_->manager().Status().workers) {
    if (worker.state != cluster::WorkerState::kIdle) continue;
    std::fprintf(stderr, "%s is idle: %s\n", worker.name.c_str(), worker.detail.c_str());
  }
}

LocalCluster::~LocalCluster() {
  // Workers first: a coordinator that goes away first would make them try to join again.
  for (auto& process : processes_) process->Terminate();
  processes_.clear();
  if (worker_ != nullptr) worker_->Shutdown();
}

}  // namespace renga::cli

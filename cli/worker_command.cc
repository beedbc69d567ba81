// renga worker: offers this machine to a coordinator.
#include <unistd.h>

#include <cstdio>
#include <memory>
#include <string>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "base/byte_size.h"
#include "base/file.h"
#include "base/status_macros.h"
#include "cli/cluster_flags.h"
#include "cli/command.h"
#include "cli/interrupt.h"
#include "cli/local_cluster.h"
#include "transport/dialer.h"
#include "transport/enroll.h"
#include "transport/join_line.h"
#include "worker/service/worker_server.h"

namespace renga::cli {
namespace {

struct WorkerFlags {
  std::string coordinator;
  std::string token;
  std::string name;
  std::string memory;
  std::string listen = "0.0.0.0:0";
  int group_port = 0;
  std::string advertise;
  std::string model;
  std::string cache;
  std::string device = "cpu";
  int threads = 0;
  bool insecure = false;
  bool local = false;
  bool keep_packed = true;
  bool lazy_head = false;
  bool quiet = false;
  bool verbose = false;
};

std::string HostName() {
  char name[256] = {};
  return ::gethostname(name, sizeof(name) - 1) == 0 ? name : "worker";
}

// The identity this worker shows: enrolled once per coordinator and kept, except for workers of a
// local cluster, whose authority ends with it.
absl::StatusOr<transport::Identity> GetIdentity(const WorkerFlags& flags) {
  if (flags.token.empty()) {
    return absl::InvalidArgumentError(
        "a worker needs the --token that `renga up` prints (or --insecure on loopback)");
  }
  transport::EnrollOptions options;
  options.coordinator_address = flags.coordinator;
  RENGA_ASSIGN_OR_RETURN(options.join_token, transport::ParseJoinToken(flags.token));
  options.worker_name = flags.name;
  if (flags.local) return transport::Enroll(options);
  return transport::LoadOrEnroll(base::StateDirectory() + "/worker", options);
}

absl::StatusOr<worker::WorkerOptions> ToOptions(const WorkerFlags& flags) {
  worker::WorkerOptions options;
  options.name = flags.name;
  options.device = {.device = flags.device, .threads = flags.threads};
  RENGA_ASSIGN_OR_RETURN(options.memory_bytes, OfferedMemory(flags.memory, flags.device, 1));
  options.listen_address = flags.listen;
  options.group_port = flags.group_port;
  options.advertise_host = flags.advertise;
  options.coordinator = {.address = flags.coordinator,
                         .name = std::string(transport::kCoordinatorName)};
  options.cache_directory = flags.cache.empty() ? base::CacheDirectory() : flags.cache;
  if (flags.keep_packed) options.packed_directory = options.cache_directory;
  if (flags.lazy_head) options.screen_directory = options.cache_directory;
  // A local cluster's workers have the model file itself.
  if (flags.local) options.cache_directory.clear();
  options.local_model_path = flags.model;
  options.measure_speed = !flags.local;
  return options;
}

// At once, also into a file or a pipe: people and scripts wait for these lines.
void PrintLine(const std::string& line) {
  std::printf("%s\n", line.c_str());
  std::fflush(stdout);
}

absl::Status RunWorker(WorkerFlags flags) {
  ApplyVerbosity(flags.quiet, flags.verbose);
  if (flags.name.empty()) flags.name = HostName();
  RENGA_RETURN_IF_ERROR(transport::ParseHostPort(flags.coordinator).status());
  RENGA_ASSIGN_OR_RETURN(worker::WorkerOptions options, ToOptions(flags));
  std::unique_ptr<transport::Dialer> dialer;
  if (flags.insecure) {
    dialer = transport::CreateInsecureLoopbackDialer();
  } else {
    RENGA_ASSIGN_OR_RETURN(options.identity, GetIdentity(flags));
    dialer = transport::CreateTlsDialer(*options.identity);
  }
  options.dialer = dialer.get();
  if (!flags.local && !flags.quiet) {
    options.on_event = PrintLine;
    PrintLine(absl::StrFormat("offering %s of memory to %s ...",
                              base::FormatByteSize(options.memory_bytes), flags.coordinator));
  }
  RENGA_ASSIGN_OR_RETURN(const auto worker, worker::WorkerServer::Create(options));
  worker->Join();
  const InterruptScope interrupt([&worker] { worker->Shutdown(); });
  return worker->Wait();
}

}  // namespace

void AddWorkerCommand(CLI::App& app, Invocation& invocation) {
  auto flags = std::make_shared<WorkerFlags>();
  CLI::App* command = app.add_subcommand(
      "worker", "Offer this machine's CPU, or its card, and memory to a coordinator");
  command->footer(
      "Example:\n"
      "  renga worker 192.168.1.10:7400 --token 3f0c...e1.9ab4...77 --memory 4GiB\n"
      "  renga worker 192.168.1.10:7400 --token 3f0c...e1.9ab4...77 --device cuda");
  command->add_option("coordinator", flags->coordinator, "HOST:PORT that `renga up` prints")
      ->required();
  command->add_option("--token", flags->token, "The join token that `renga up` prints")
      ->envname("RENGA_JOIN_TOKEN");
  command->add_option(
      "--memory", flags->memory,
      "Memory to offer, e.g. 3.5GiB (default: nine tenths of what is available; of a "
      "card, all that is free but 128 MiB)");
  command->add_option("-t,--threads", flags->threads, "Threads (default: all CPUs)")
      ->check(CLI::Range(1, 1024));
  command->add_option("--name", flags->name, "Name for people (default: the host's name)");
  command->add_option("--listen", flags->listen, "HOST:PORT other workers reach this one at")
      ->capture_default_str();
  command
      ->add_option("--group-port", flags->group_port,
                   "Port where members of a tensor-parallel group connect (default: any)")
      ->check(CLI::Range(0, 65535));
  command->add_option("--advertise", flags->advertise,
                      "Address others should use (default: the one the coordinator sees)");
  command->add_option("--model", flags->model,
                      "A copy of the model on this machine, to read instead of fetching");
  command->add_option("--cache", flags->cache, "Folder that keeps shipped shards");
  command
      ->add_option("--device", flags->device,
                   "cpu, cpu-avx2, ..., cuda or cuda:1 (an NVIDIA card), or reference")
      ->capture_default_str();
  AddPackedCacheFlag(*command, flags->keep_packed);
  AddLazyHeadFlag(*command, flags->lazy_head);
  command->add_flag("--insecure", flags->insecure, "Plain text; loopback addresses only");
  command->add_flag("--local", flags->local, "Started by another renga on this machine")->group("");
  AddVerbosityFlags(*command, flags->quiet, flags->verbose);
  command->callback(
      [flags, &invocation] { invocation.action = [flags] { return RunWorker(*flags); }; });
}

}  // namespace renga::cli

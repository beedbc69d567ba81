// renga worker: offers this machine to a coordinator.
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/synchronization/mutex.h"
#include "base/byte_size.h"
#include "base/claimed_folder.h"
#include "base/file.h"
#include "base/machine_limits.h"
#include "base/status_macros.h"
#include "cli/cluster_flags.h"
#include "cli/command.h"
#include "cli/device_flags.h"
#include "cli/interrupt.h"
#include "transport/dialer.h"
#include "transport/enroll.h"
#include "transport/join_line.h"
#include "worker/kernels/backend_factory.h"
#include "worker/service/memory_offer.h"
#include "worker/service/worker_server.h"

namespace renga::cli {
namespace {

struct WorkerFlags {
  std::string coordinator;
  std::string token;
  std::string name;
  DeviceFlags devices;
  std::string memory_file;
  std::string listen;  // empty: any port of all addresses, or of loopback where that is plain text
  int data_port = 0;
  std::string advertise;
  std::string model;
  std::string cache;
  int threads = 0;
  bool insecure = false;
  bool local = false;
  bool spare = false;    // with `local`: all that is offered
  bool measure = false;  // with `local`: the device, too
  double measure_again_minutes = 30;
  bool keep_packed = true;
  std::optional<bool> lazy_head;
  bool quiet = false;
  bool verbose = false;
};

std::string HostName() {
  char name[256] = {};
  return ::gethostname(name, sizeof(name) - 1) == 0 ? name : "worker";
}

// The identity a worker shows: enrolled once per coordinator and kept in a folder that no other
// worker of this machine uses meanwhile, except for workers of a local cluster, whose authority
// ends with it.
struct OwnIdentity {
  std::optional<base::ClaimedFolder> folder;
  transport::Identity identity;
};
absl::StatusOr<OwnIdentity> GetIdentity(const WorkerFlags& flags, const std::string& name,
                                        bool spare) {
  if (flags.token.empty()) {
    return absl::InvalidArgumentError(
        "a worker needs the --token that `renga up` prints (or --insecure on loopback)");
  }
  transport::EnrollOptions options;
  options.coordinator_address = flags.coordinator;
  RENGA_ASSIGN_OR_RETURN(options.join_token, transport::ParseJoinToken(flags.token));
  options.worker_name = name;
  OwnIdentity own;
  if (flags.local) {
    RENGA_ASSIGN_OR_RETURN(own.identity, transport::Enroll(options));
    return own;
  }
  const std::string folder = base::StateDirectory() + "/worker";
  RENGA_ASSIGN_OR_RETURN(own.folder,
                         base::ClaimedFolder::Claim(spare ? SpareName(folder) : folder));
  RENGA_ASSIGN_OR_RETURN(own.identity, transport::LoadOrEnroll(own.folder->path(), options));
  return own;
}

// Where the `number`-th worker of this process listens: the port that was asked for, and those
// behind it.
absl::StatusOr<std::string> ListenAddress(const WorkerFlags& flags, int number) {
  // Plain text stays on this machine: then the line that `renga up --insecure` prints is enough.
  const std::string& asked = !flags.listen.empty() ? flags.listen
                             : flags.insecure      ? "127.0.0.1:0"
                                                   : "0.0.0.0:0";
  RENGA_ASSIGN_OR_RETURN(const transport::HostPort address, transport::ParseHostPort(asked));
  if (address.port == 0 || number == 0) return asked;
  const std::string port = absl::StrCat(address.port);
  return absl::StrCat(absl::string_view(asked).substr(0, asked.size() - port.size()),
                      address.port + number);
}

// What the device's worker offers later on. The system's limits are of no concern to a card's
// memory.
std::function<int64_t()> FollowedOffer(const WorkerFlags& flags, const DeviceOffer& offer) {
  // A local cluster is planned once.
  if (flags.local) return nullptr;
  worker::MemoryOffer::Options options = {
      .bytes = offer.memory_bytes, .file = flags.memory_file, .limit = {}};
  if (!kernels::IsCard(offer.device)) {
    options.limit = [] { return base::ReadCgroupLimits("").memory; };
  }
  return [followed = std::make_shared<worker::MemoryOffer>(options)] { return followed->Now(); };
}

// A folder that was asked for has to be one, or everything would come again at each start; the
// usual one is only used where it can be.
absl::Status CheckCache(const std::string& folder) {
  absl::Status status = base::CreateDirectories(folder);
  if (status.ok() && ::access(folder.c_str(), W_OK | X_OK) != 0) {
    status = absl::ErrnoToStatus(errno, folder);
  }
  if (status.ok()) return status;
  return absl::Status(
      status.code(),
      absl::StrCat("--cache needs a folder that this user may write to: ", status.message()));
}

absl::StatusOr<worker::WorkerOptions> ToOptions(const WorkerFlags& flags, const DeviceOffer& offer,
                                                int number) {
  worker::WorkerOptions options;
  options.name = offer.spare && !flags.spare ? SpareName(flags.name) : flags.name;
  options.device = {.device = offer.device, .threads = flags.threads};
  options.memory_bytes = offer.memory_bytes;
  if (number == 0) options.memory_bytes_now = FollowedOffer(flags, offer);
  options.spare = offer.spare;
  RENGA_ASSIGN_OR_RETURN(options.listen_address, ListenAddress(flags, number));
  options.data_port = flags.data_port == 0 ? 0 : flags.data_port + number;
  options.advertise_host = flags.advertise;
  options.coordinator = {.address = flags.coordinator,
                         .name = std::string(transport::kCoordinatorName)};
  if (!flags.cache.empty()) RENGA_RETURN_IF_ERROR(CheckCache(flags.cache));
  options.cache_directory = flags.cache.empty() ? base::CacheDirectory() : flags.cache;
  if (flags.keep_packed) options.packed_directory = options.cache_directory;
  if (flags.lazy_head.value_or(false)) options.screen_directory = options.cache_directory;
  // A local cluster's workers have the model file itself.
  if (flags.local) options.cache_directory.clear();
  options.local_model_path = flags.model;
  options.measure_speed = !flags.local || flags.measure;
  options.measure_again_after = flags.measure_again_minutes > 0
                                    ? absl::Minutes(flags.measure_again_minutes)
                                    : absl::InfiniteDuration();
  return options;
}

// At once, also into a file or a pipe: people and scripts wait for these lines.
void PrintLine(const std::string& line) {
  std::printf("%s\n", line.c_str());
  std::fflush(stdout);
}

// A worker and what it uses. Destroyed from the bottom.
struct RunningWorker {
  OwnIdentity own;
  std::unique_ptr<transport::Dialer> dialer;
  std::unique_ptr<worker::WorkerServer> server;
};

absl::StatusOr<RunningWorker> StartWorker(const WorkerFlags& flags, const DeviceOffer& offer,
                                          int number) {
  RENGA_ASSIGN_OR_RETURN(worker::WorkerOptions options, ToOptions(flags, offer, number));
  RunningWorker running;
  if (flags.insecure) {
    running.dialer = transport::CreateInsecureLoopbackDialer();
  } else {
    RENGA_ASSIGN_OR_RETURN(running.own, GetIdentity(flags, options.name, offer.spare));
    options.identity = running.own.identity;
    running.dialer = transport::CreateTlsDialer(*options.identity);
  }
  options.dialer = running.dialer.get();
  if (!flags.local && !flags.quiet) {
    options.on_event = PrintLine;
    if (number > 0) {
      options.on_event = [](const std::string& line) { PrintLine("host memory: " + line); };
    }
    options.on_event(absl::StrFormat("offering %s of memory to %s ...",
                                     base::FormatByteSize(options.memory_bytes),
                                     flags.coordinator));
  }
  RENGA_ASSIGN_OR_RETURN(running.server, worker::WorkerServer::Create(options));
  return running;
}

// Until one of them ends, which ends the others; its reason.
absl::Status WaitForAll(const std::vector<RunningWorker>& workers) {
  absl::Mutex mutex;
  absl::Status first;
  std::vector<std::thread> threads;
  for (const RunningWorker& worker : workers) {
    threads.emplace_back([&, server = worker.server.get()] {
      absl::Status status = server->Wait();
      {
        absl::MutexLock lock(&mutex);
        first.Update(status);
      }
      for (const RunningWorker& other : workers) other.server->Shutdown();
    });
  }
  for (std::thread& thread : threads) thread.join();
  return first;
}

absl::Status RunWorker(WorkerFlags flags) {
  ApplyVerbosity(flags.quiet, flags.verbose);
  if (flags.name.empty()) flags.name = HostName();
  RENGA_RETURN_IF_ERROR(transport::ParseHostPort(flags.coordinator).status());
  if (!flags.memory_file.empty()) {
    RENGA_ASSIGN_OR_RETURN(const int64_t bytes, worker::ReadOffer(flags.memory_file));
    flags.devices.memory = absl::StrCat(bytes);
  }
  RENGA_ASSIGN_OR_RETURN(std::vector<DeviceOffer> offers, OffersOf(flags.devices));
  if (flags.spare) offers.front().spare = true;
  std::vector<RunningWorker> workers;
  for (const DeviceOffer& offer : offers) {
    RENGA_ASSIGN_OR_RETURN(workers.emplace_back(),
                           StartWorker(flags, offer, static_cast<int>(workers.size())));
  }
  // When all are ready, so that the first plan knows of all.
  for (const RunningWorker& worker : workers) worker.server->Join();
  const InterruptScope interrupt([&workers] {
    for (const RunningWorker& worker : workers) worker.server->Shutdown();
  });
  return WaitForAll(workers);
}

}  // namespace

void AddWorkerCommand(CLI::App& app, Invocation& invocation) {
  auto flags = std::make_shared<WorkerFlags>();
  CLI::App* command = app.add_subcommand(
      "worker", "Offer this machine's CPU, or its card, and memory to a coordinator");
  command->footer(
      "Example:\n"
      "  renga worker 192.168.1.10:7400 --token 3f0c...e1.9ab4...77 --memory 4GiB\n"
      "  renga worker 192.168.1.10:7400 --token 3f0c...e1.9ab4...77 --device cuda\n"
      "  renga worker 192.168.1.10:7400 --token ... --device cuda --host-memory 8GiB");
  command->add_option("coordinator", flags->coordinator, "HOST:PORT that `renga up` prints")
      ->required();
  command->add_option("--token", flags->token, "The join token that `renga up` prints")
      ->envname("RENGA_JOIN_TOKEN");
  CLI::Option* const memory = command->add_option(
      "--memory", flags->devices.memory,
      "Memory to offer, e.g. 3.5GiB (default: nine tenths of what is available; of a "
      "card, all that is free but 128 MiB)");
  command
      ->add_option("--memory-file", flags->memory_file,
                   "A file that says how much memory to offer; the worker follows it while it runs")
      ->excludes(memory);
  command->add_option("-t,--threads", flags->threads, "Threads (default: all CPUs)")
      ->check(CLI::Range(1, 1024));
  command->add_option("--name", flags->name, "Name for people (default: the host's name)");
  command->add_option("--listen", flags->listen,
                      "HOST:PORT other workers reach this one at (default: 0.0.0.0:0, any port of "
                      "all addresses; 127.0.0.1:0 with --insecure)");
  command
      ->add_option("--data-port", flags->data_port,
                   "Port where activations travel, beside that of --listen (default: any)")
      ->check(CLI::Range(0, 65535));
  command->add_option("--advertise", flags->advertise,
                      "Address others should use (default: the one the coordinator sees)");
  command->add_option("--model", flags->model,
                      "A copy of the model on this machine, to read instead of fetching");
  command->add_option("--cache", flags->cache, "Folder that keeps shipped shards");
  command
      ->add_option("--measure-again", flags->measure_again_minutes,
                   "Minutes after which the speed of this machine is measured again, as soon as "
                   "it has nothing to do (default: 30; 0: never)")
      ->check(CLI::Range(0.0, 1e6));
  AddDeviceFlags(*command, flags->devices);
  AddPackedCacheFlag(*command, flags->keep_packed);
  AddLazyHeadFlag(*command, flags->lazy_head, "no");
  command->add_flag("--insecure", flags->insecure, "Plain text; loopback addresses only");
  command->add_flag("--local", flags->local, "Started by another renga on this machine")->group("");
  command->add_flag("--spare", flags->spare, "Of --local: memory beside another worker's card")
      ->group("");
  command->add_flag("--measure", flags->measure, "Of --local: measure the device")->group("");
  AddVerbosityFlags(*command, flags->quiet, flags->verbose);
  command->callback(
      [flags, &invocation] { invocation.action = [flags] { return RunWorker(*flags); }; });
}

}  // namespace renga::cli

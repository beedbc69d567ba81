#include "cli/planned_cluster.h"

#include <algorithm>
#include <memory>
#include <optional>
#include <utility>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "base/byte_size.h"
#include "base/data_type.h"
#include "base/file.h"
#include "base/status_macros.h"
#include "base/thread_pool.h"
#include "cli/fetch_status.h"
#include "coordinator/cluster/placement.h"
#include "partition/device_library.h"
#include "worker/engine/memory_budget.h"
#include "worker/kernels/backend_factory.h"
#include "worker/service/speed_probe.h"

namespace renga::cli {
namespace {

// Speed taken for a worker that states none: a small machine's memory bandwidth.
constexpr double kAssumedGigabytesPerSecond = 10;
constexpr char kAssumedNetwork[] = "1gbe";
constexpr size_t kMaxNamed = 4;

// "4GiB" or "4GiB@20": memory, and weights read per second in GB. 0 bytes per second: not stated.
absl::StatusOr<partition::WorkerProfile> ParseWorker(const std::string& text, size_t number) {
  const std::vector<std::string> parts = absl::StrSplit(text, '@');
  partition::WorkerProfile worker;
  worker.id = absl::StrCat("worker ", number);
  double gigabytes_per_second = 0;
  if (parts.size() > 2 ||
      (parts.size() == 2 && (!absl::SimpleAtod(parts[1], &gigabytes_per_second) ||
                             !(gigabytes_per_second > 0) || gigabytes_per_second > 1e6))) {
    return absl::InvalidArgumentError(
        absl::StrCat("write a worker as MEMORY or MEMORY@GB_PER_S (4GiB@20), not '", text, "'"));
  }
  RENGA_ASSIGN_OR_RETURN(worker.memory_bytes, base::ParseByteSize(parts[0]));
  worker.bytes_per_second = gigabytes_per_second * 1e9;
  return worker;
}

// "worker 1, worker 2 and 3 more".
std::string SomeNames(const std::vector<std::string>& names) {
  const size_t named = std::min(names.size(), kMaxNamed);
  std::string text = absl::StrJoin(names.begin(), names.begin() + static_cast<long>(named), ", ");
  if (names.size() > named) absl::StrAppend(&text, " and ", names.size() - named, " more");
  return text;
}

void AssumeSpeeds(PlannedCluster& planned) {
  std::vector<std::string> names;
  for (partition::WorkerProfile& worker : planned.cluster.workers) {
    if (worker.bytes_per_second > 0) continue;
    worker.bytes_per_second = kAssumedGigabytesPerSecond * 1e9;
    names.push_back(worker.id);
  }
  if (names.empty()) return;
  planned.remarks.push_back(absl::StrFormat(
      "how fast %s reads weights was not said: taken for %.0f GB/s (a worker of 20 GB/s is "
      "4GiB@20; `renga plan --devices` lists known ones)",
      SomeNames(names), kAssumedGigabytesPerSecond));
}

// Whether every two machines have a link of their own; one machine needs none.
bool NamesAllLinks(const partition::Cluster& cluster) {
  const auto count = static_cast<int>(cluster.workers.size());
  if (count < 2) return true;
  const auto has = [&](int from, int to) {
    return std::any_of(cluster.links.pairs.begin(), cluster.links.pairs.end(),
                       [&](const auto& pair) { return pair.from == from && pair.to == to; });
  };
  for (int from = partition::kCoordinator; from < count; ++from) {
    for (int to = partition::kCoordinator; to < count; ++to) {
      if (from != to && !has(from, to)) return false;
    }
  }
  return true;
}

// A network that costs nothing would make plans that nobody's machines can keep.
absl::Status AssumeNetwork(const std::string& named, PlannedCluster& planned) {
  partition::LinkProfile& link = planned.cluster.links.default_link;
  if (!named.empty()) {
    RENGA_ASSIGN_OR_RETURN(link, partition::FindLink(named));
    return absl::OkStatus();
  }
  if (link != partition::LinkProfile{} || NamesAllLinks(planned.cluster)) return absl::OkStatus();
  RENGA_ASSIGN_OR_RETURN(link, partition::FindLink(kAssumedNetwork));
  planned.remarks.push_back(absl::StrCat(
      planned.cluster.links.pairs.empty() ? "the network was not said" : "not every link is known",
      ": taken for ", kAssumedNetwork, " (--network says another one, as wifi or 2.5gbe)"));
  return absl::OkStatus();
}

// A worker's kernels as it would offer them.
absl::StatusOr<cluster::Member> MeasureThisMachine(bool lazy, int64_t memory_bytes) {
  RENGA_ASSIGN_OR_RETURN(const std::unique_ptr<kernels::Backend> backend,
                         kernels::CreateBackend({}));
  engine::MemoryBudget budget(memory_bytes);
  RENGA_ASSIGN_OR_RETURN(
      const worker::DeviceSpeed speed,
      worker::MeasureDevice(*backend, budget, lazy ? base::CacheDirectory() : ""));
  cluster::Member member;
  member.id = member.name = "this machine";
  member.offer.memory_bytes = memory_bytes;
  for (const worker::KernelSpeed& kernel : speed.kernels) {
    member.offer.kernels.push_back({.type = kernel.type,
                                    .decode_bytes_per_second = kernel.decode_bytes_per_second,
                                    .prefill_bytes_per_second = kernel.prefill_bytes_per_second});
  }
  member.offer.weight_bytes_per_second = speed.kernels.front().decode_bytes_per_second;
  member.offer.layer_us = speed.layer_us;
  member.offer.disk_bytes_per_second = speed.disk_bytes_per_second;
  return member;
}

absl::Status AddThisMachine(const model::ModelFootprint& footprint, bool lazy,
                            PlannedCluster& planned) {
  RENGA_ASSIGN_OR_RETURN(const cluster::Member member,
                         MeasureThisMachine(lazy, base::AvailableMemoryBytes()));
  planned.cluster = cluster::ToCluster({member}, footprint, {});
  planned.remarks.push_back(absl::StrFormat(
      "this machine was measured: its processor reads %.1f GB of %s weights per second",
      member.offer.weight_bytes_per_second / 1e9,
      base::GetDataTypeInfo(member.offer.kernels.front().type).name));
  return absl::OkStatus();
}

absl::StatusOr<cluster::Member> MemberOf(const nlohmann::json& worker) {
  cluster::Member member;
  member.id = worker.value("id", "");
  member.name = worker.value("name", "");
  member.offer.memory_bytes = worker.value("offered_bytes", int64_t{0});
  member.offer.weight_bytes_per_second = worker.value("weight_bytes_per_second", 0.0);
  member.offer.disk_bytes_per_second = worker.value("disk_bytes_per_second", 0.0);
  member.offer.layer_us = worker.value("layer_us", 0.0);
  member.offer.spare = worker.value("spare", false);
  member.offer.machine = worker.value("machine", "");
  member.offer.card = worker.value("card", "");
  for (const nlohmann::json& kernel : worker.value("kernels", nlohmann::json::array())) {
    const std::optional<base::DataType> type = base::DataTypeFromName(kernel.value("type", ""));
    const double prefill = kernel.value("prefill_bytes_per_second", 0.0);
    if (!type.has_value() || !(prefill > 0)) {
      return absl::InvalidArgumentError(
          absl::StrCat("worker '", member.name, "' has a kernel without a format or a speed"));
    }
    member.offer.kernels.push_back(
        {.type = *type,
         .decode_bytes_per_second = kernel.value("decode_bytes_per_second", 0.0),
         .prefill_bytes_per_second = prefill});
  }
  return member;
}

absl::StatusOr<cluster::LinkProfile> LinkOf(const nlohmann::json& link) {
  std::vector<cluster::LinkTime> times;
  for (const nlohmann::json& time : link.value("times", nlohmann::json::array())) {
    times.push_back({.payload_bytes = time.value("bytes", int64_t{0}),
                     .rtt_p50_us = time.value("rtt_p50_us", 0.0),
                     .rtt_p99_us = time.value("rtt_p99_us", 0.0)});
  }
  return cluster::MakeLinkProfile(link.value("from", ""), link.value("to", ""), std::move(times),
                                  link.value("measured_at_s", int64_t{0}));
}

absl::StatusOr<partition::Cluster> ReadStatus(const nlohmann::json& status,
                                              const model::ModelFootprint& footprint) {
  std::vector<cluster::Member> members;
  for (const nlohmann::json& worker : status.value("workers", nlohmann::json::array())) {
    if (worker.value("state", "") == cluster::WorkerStateName(cluster::WorkerState::kLost))
      continue;
    RENGA_ASSIGN_OR_RETURN(members.emplace_back(), MemberOf(worker));
  }
  if (members.empty()) {
    return absl::FailedPreconditionError(
        "no worker has joined there yet: nothing is known to plan with");
  }
  std::vector<cluster::LinkProfile> links;
  for (const nlohmann::json& link : status.value("links", nlohmann::json::array())) {
    RENGA_ASSIGN_OR_RETURN(links.emplace_back(), LinkOf(link));
  }
  return cluster::ToCluster(members, footprint, links);
}

absl::Status AddRunning(const PlannedClusterFlags& flags, const model::ModelFootprint& footprint,
                        PlannedCluster& planned) {
  RENGA_ASSIGN_OR_RETURN(const nlohmann::json status, FetchStatus(flags.running, flags.api_key));
  RENGA_ASSIGN_OR_RETURN(planned.cluster, ClusterOfStatus(status, footprint));
  planned.remarks.push_back(
      absl::StrCat("speeds and links are those that were measured at ", flags.running));
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<partition::Cluster> ClusterOfStatus(const nlohmann::json& status,
                                                   const model::ModelFootprint& footprint) {
  // Another process's JSON may lack or mistype anything: nlohmann throws then.
  try {
    return ReadStatus(status, footprint);
  } catch (const nlohmann::json::exception& error) {
    return absl::InvalidArgumentError(
        absl::StrCat("the status of the running cluster can't be read: ", error.what()));
  }
}

void AddPlannedClusterFlags(CLI::App& command, PlannedClusterFlags& flags) {
  command.add_option(
      "--worker", flags.workers,
      "A machine as MEMORY or MEMORY@GB_PER_S; repeat for each; beside --running one "
      "more (default: this machine, measured)");
  command.add_option("--cluster", flags.file, "JSON file of machines and links, owned or not");
  command.add_option("--running", flags.running,
                     "HOST:PORT of the HTTP side of a `renga up`: plan for the machines that have "
                     "joined there, as they were measured");
  command.add_option("--api-key", flags.api_key, "Of --running: key, if the server wants one")
      ->envname("RENGA_API_KEY");
  command.add_option("--network", flags.network,
                     absl::StrCat("Link between machines: 1gbe, 2.5gbe, 10gbe, wifi (default: what "
                                  "the file says or was measured, else ",
                                  kAssumedNetwork, ")"));
}

absl::StatusOr<PlannedCluster> ReadPlannedCluster(const PlannedClusterFlags& flags,
                                                  const model::ModelFootprint& footprint,
                                                  bool lazy) {
  if (!flags.file.empty() && (!flags.workers.empty() || !flags.running.empty())) {
    return absl::InvalidArgumentError(
        "--cluster describes all machines: it goes neither with --worker nor with --running");
  }
  PlannedCluster planned;
  if (!flags.file.empty()) {
    RENGA_ASSIGN_OR_RETURN(const std::string text,
                           base::ReadFile(flags.file, partition::kMaxClusterFileBytes));
    RENGA_ASSIGN_OR_RETURN(planned.cluster, partition::ParseCluster(text));
  }
  if (!flags.running.empty()) RENGA_RETURN_IF_ERROR(AddRunning(flags, footprint, planned));
  for (const std::string& text : flags.workers) {
    RENGA_ASSIGN_OR_RETURN(planned.cluster.workers.emplace_back(),
                           ParseWorker(text, planned.cluster.workers.size() + 1));
  }
  if (planned.cluster.workers.empty()) {
    RENGA_RETURN_IF_ERROR(AddThisMachine(footprint, lazy, planned));
  }
  AssumeSpeeds(planned);
  RENGA_RETURN_IF_ERROR(AssumeNetwork(flags.network, planned));
  return planned;
}

}  // namespace renga::cli

// renga plan: what would go where, before anything is bought or wired.
#include <cstdio>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_split.h"
#include "base/byte_size.h"
#include "base/file.h"
#include "base/status_macros.h"
#include "base/thread_pool.h"
#include "cli/command.h"
#include "cli/plan_flags.h"
#include "model/architecture.h"
#include "model/footprint.h"
#include "model/gguf_file.h"
#include "nlohmann/json.hpp"
#include "partition/cluster_file.h"
#include "partition/device_library.h"
#include "partition/explain.h"
#include "partition/known_models.h"
#include "partition/replicas.h"
#include "partition/simulator.h"
#include "partition/what_if.h"

namespace renga::cli {
namespace {

// Speed taken for a worker that states none: a small machine's memory bandwidth.
constexpr double kAssumedGigabytesPerSecond = 10;

struct PlanCommandFlags {
  std::string model;
  std::vector<std::string> workers;
  std::string cluster;
  std::string network;
  bool simulate = false;
  partition::SimulationRequest simulation;
  bool what_if = false;
  bool json = false;
  bool devices = false;
  PlanFlags plan;
};

// "4GiB" or "4GiB@20": memory, and weights read per second in GB.
absl::StatusOr<partition::WorkerProfile> ParseWorker(const std::string& text, size_t number) {
  const std::vector<std::string> parts = absl::StrSplit(text, '@');
  partition::WorkerProfile worker;
  worker.id = absl::StrCat("worker ", number);
  double gigabytes_per_second = kAssumedGigabytesPerSecond;
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

absl::StatusOr<partition::Cluster> ReadCluster(const PlanCommandFlags& flags) {
  partition::Cluster cluster;
  if (!flags.cluster.empty()) {
    if (!flags.workers.empty()) {
      return absl::InvalidArgumentError("--cluster and --worker describe the same thing: give one");
    }
    RENGA_ASSIGN_OR_RETURN(const std::string text,
                           base::ReadFile(flags.cluster, partition::kMaxClusterFileBytes));
    RENGA_ASSIGN_OR_RETURN(cluster, partition::ParseCluster(text));
  }
  for (const std::string& text : flags.workers) {
    RENGA_ASSIGN_OR_RETURN(cluster.workers.emplace_back(),
                           ParseWorker(text, cluster.workers.size() + 1));
  }
  if (cluster.workers.empty()) {
    cluster.workers.push_back({.id = "this machine",
                               .memory_bytes = base::AvailableMemoryBytes(),
                               .bytes_per_second = kAssumedGigabytesPerSecond * 1e9});
  }
  if (!flags.network.empty()) {
    RENGA_ASSIGN_OR_RETURN(cluster.links.default_link, partition::FindLink(flags.network));
  }
  return cluster;
}

// A GGUF file, or a model that is known by name.
absl::StatusOr<partition::KnownModel> ReadModel(const std::string& name) {
  const auto file = model::GgufFile::Open(name);
  if (absl::IsNotFound(file.status())) return partition::FindKnownModel(name);
  RENGA_RETURN_IF_ERROR(file.status());
  partition::KnownModel read;
  RENGA_ASSIGN_OR_RETURN(read.model, model::ReadModel(**file));
  RENGA_ASSIGN_OR_RETURN(read.footprint, model::MeasureModel(**file, read.model));
  return read;
}

std::string SimulationText(const partition::SimulationRequest& asked,
                           const partition::SimulationResult& result) {
  std::string speculation;
  if (asked.draft_tokens > 0) {
    speculation = absl::StrFormat(", %d guesses of which %.0f %% are right", asked.draft_tokens,
                                  100 * asked.acceptance);
  }
  return absl::StrFormat(
      "simulated: %d stream(s), %d prompt tokens in chunks of %d, %d answer tokens%s: first token "
      "after %.0f ms, then %.2f ms per token, %.1f tok/s in all, the busiest stage %.0f %% busy\n",
      asked.streams, asked.prompt_tokens, asked.chunk_tokens, asked.answer_tokens, speculation,
      result.first_token_ms, result.ms_per_token, result.tokens_per_second,
      100 * result.busiest_stage);
}

// What lies on spare workers: weights that fit on no card.
int64_t SpilledBytes(const partition::Plan& plan,
                     const std::vector<partition::WorkerProfile>& workers) {
  int64_t bytes = 0;
  for (size_t i = 0; i < workers.size(); ++i) {
    if (workers[i].spare) bytes += plan.workers[i].bytes.weights;
  }
  return bytes;
}

nlohmann::json ToJson(const partition::Plan& plan,
                      const std::vector<partition::WorkerProfile>& workers) {
  nlohmann::json json = {{"ms_per_token", plan.stream_ms},
                         {"slowest_ms", plan.slowest_ms},
                         {"bound_ms", plan.bound_ms},
                         {"exact", plan.exact},
                         {"head_ms", plan.times.head},
                         {"head_blocks", plan.heads.size()},
                         {"spilled_bytes", SpilledBytes(plan, workers)}};
  json["stages"] = nlohmann::json::array();
  for (size_t i = 0; i < plan.stages.size(); ++i) {
    const partition::StageTimes& times = plan.times.stages[i];
    json["stages"].push_back({{"workers", plan.stages[i].members.size()},
                              {"layers", plan.stages[i].layers.size()},
                              {"hop_ms", times.hop},
                              {"compute_ms", times.compute},
                              {"sums_ms", times.sums}});
  }
  return json;
}

// The first plan's figures, where there is one; those of each, and of all together, where there are
// several.
nlohmann::json ToJson(const partition::Replicas& replicas,
                      const std::vector<partition::WorkerProfile>& workers,
                      const std::vector<partition::SimulationResult>& simulated) {
  const bool one = replicas.plans.size() == 1;
  nlohmann::json json = one ? ToJson(replicas.plans[0], workers) : nlohmann::json::object();
  json["replicas"] = replicas.plans.size();
  json["steps_per_second"] = replicas.steps_per_second;
  for (size_t i = 0; i < replicas.plans.size(); ++i) {
    nlohmann::json of_one = one ? nlohmann::json() : ToJson(replicas.plans[i], workers);
    nlohmann::json& target = one ? json : of_one;
    if (i < simulated.size()) {
      target["simulated"] = {{"first_token_ms", simulated[i].first_token_ms},
                             {"ms_per_token", simulated[i].ms_per_token},
                             {"tokens_per_second", simulated[i].tokens_per_second}};
    }
    if (!one) json["plans"].push_back(std::move(of_one));
  }
  return json;
}

// A run of each replica with its share of the streams.
absl::StatusOr<std::vector<partition::SimulationResult>> SimulateAll(
    const PlanCommandFlags& flags, const partition::KnownModel& read,
    const std::vector<partition::WorkerProfile>& workers, const partition::PlanRequest& request,
    const partition::Replicas& replicas) {
  std::vector<partition::SimulationResult> results;
  if (!flags.simulate) return results;
  const auto count = static_cast<int64_t>(replicas.plans.size());
  const partition::PlanRequest share = partition::ShareOfRequest(request, count);
  for (int64_t i = 0; i < count; ++i) {
    const partition::StepTimes times = partition::StepTimesOf(
        read.model, read.footprint, workers, share, replicas.plans[static_cast<size_t>(i)]);
    partition::SimulationRequest asked = flags.simulation;
    asked.streams = (flags.simulation.streams + count - 1 - i) / count;
    if (asked.streams == 0) break;
    RENGA_ASSIGN_OR_RETURN(results.emplace_back(), partition::Simulate(times, asked));
  }
  return results;
}

void PrintSimulations(const PlanCommandFlags& flags, const partition::Replicas& replicas,
                      const std::vector<partition::SimulationResult>& simulated) {
  double sum = 0;
  for (size_t i = 0; i < simulated.size(); ++i) {
    partition::SimulationRequest asked = flags.simulation;
    const auto count = static_cast<int64_t>(replicas.plans.size());
    asked.streams = (asked.streams + count - 1 - static_cast<int64_t>(i)) / count;
    if (count > 1) std::printf("replica %zu ", i + 1);
    std::fputs(SimulationText(asked, simulated[i]).c_str(), stdout);
    sum += simulated[i].tokens_per_second;
  }
  if (simulated.size() > 1) {
    std::printf("all %zu replicas simulated: %.1f tok/s\n", simulated.size(), sum);
  }
}

absl::Status Plan(const PlanCommandFlags& flags) {
  if (flags.devices) {
    std::fputs(partition::DescribeLibrary().c_str(), stdout);
    return absl::OkStatus();
  }
  RENGA_ASSIGN_OR_RETURN(const partition::KnownModel read, ReadModel(flags.model));
  RENGA_ASSIGN_OR_RETURN(partition::PlanRequest request,
                         ToPlanRequest(flags.plan, read.model.config));
  RENGA_ASSIGN_OR_RETURN(const partition::Cluster cluster, ReadCluster(flags));
  request.links = cluster.links;
  request.worth_dropping = 1;  // these speeds are not measured: they do not vary
  RENGA_ASSIGN_OR_RETURN(
      const partition::Replicas replicas,
      partition::PlanReplicas(read.model, read.footprint, cluster.workers, request));
  RENGA_ASSIGN_OR_RETURN(const std::vector<partition::SimulationResult> simulated,
                         SimulateAll(flags, read, cluster.workers, request, replicas));
  if (flags.json) {
    std::puts(ToJson(replicas, cluster.workers, simulated).dump().c_str());
    return absl::OkStatus();
  }
  std::fputs(partition::ExplainExperts(read.model, read.footprint).c_str(), stdout);
  std::fputs(partition::ExplainReplicas(replicas, cluster.workers).c_str(), stdout);
  PrintSimulations(flags, replicas, simulated);
  if (flags.what_if) {
    RENGA_ASSIGN_OR_RETURN(
        const std::vector<partition::Change> changes,
        partition::ExploreChanges(read.model, read.footprint, cluster.workers, request, replicas));
    std::fputs(partition::ExplainChanges(replicas, request.objective, changes).c_str(), stdout);
  }
  return absl::OkStatus();
}

void AddSimulationFlags(CLI::App& command, PlanCommandFlags& flags) {
  partition::SimulationRequest& asked = flags.simulation;
  const CLI::Range any(int64_t{1}, partition::kMaxSimulatedSteps);
  command.add_flag("--simulate", flags.simulate, "Run the plan in the simulator");
  command.add_option("--streams", asked.streams, "Simulated sequences at one time")
      ->capture_default_str()
      ->check(any);
  command.add_option("--prompt", asked.prompt_tokens, "Simulated tokens of each prompt")
      ->capture_default_str()
      ->check(any);
  command.add_option("--answer", asked.answer_tokens, "Simulated tokens of each answer")
      ->capture_default_str()
      ->check(any);
  command.add_option("--draft", asked.draft_tokens, "Simulated guesses per step")
      ->capture_default_str()
      ->check(CLI::Range(0, 64));
  command.add_option("--acceptance", asked.acceptance, "Share of the guesses that are right")
      ->capture_default_str()
      ->check(CLI::Range(0.0, 1.0));
  command.add_option("--draft-ms", asked.draft_ms, "Time to make the guesses of a step, in ms")
      ->capture_default_str()
      ->check(CLI::Range(0.0, 1e6));
}

}  // namespace

void AddPlanCommand(CLI::App& app, Invocation& invocation) {
  auto flags = std::make_shared<PlanCommandFlags>();
  flags->plan.objective = "one-stream";
  flags->plan.tensor_parallel = 0;
  CLI::App* command =
      app.add_subcommand("plan", "Say which layers would go to which worker, or why it can't fit");
  command->footer(
      "Example:\n"
      "  renga plan model.gguf --worker 4GiB@20 --worker 4GiB@20 --context 2048\n"
      "  renga plan llama-2-13b --worker 4GiB --lazy\n"
      "  renga plan llama-2-13b --cluster cluster.json --what-if --simulate --streams 4\n"
      "  renga plan model.gguf --worker 4GiB --worker 4GiB --objective many-streams --replicas "
      "auto "
      "--sequences 8\n"
      "A cluster file:\n"
      "  {\"machines\": [{\"device\": \"gtx-1050-ti\", \"count\": 4}], \"network\": \"1gbe\"}");
  command->add_option("model", flags->model,
                      "GGUF file, or a known model's name with a format (llama-2-13b:Q4_K_M)");
  command->add_option(
      "--worker", flags->workers,
      "A machine as MEMORY or MEMORY@GB_PER_S; repeat for each (default: this one)");
  command->add_option("--cluster", flags->cluster, "JSON file of machines and links, owned or not");
  command->add_option("--network", flags->network,
                      "Link between machines: 1gbe, 2.5gbe, 10gbe, wifi");
  command->add_flag("--what-if", flags->what_if,
                    "What one more machine, one less, or faster links would give");
  command->add_flag("--json", flags->json, "The plan's figures as one line of JSON");
  command->add_flag("--devices", flags->devices,
                    "List the devices and links that are known by name");
  AddSimulationFlags(*command, *flags);
  AddPlanFlags(*command, flags->plan, /*with_sequences=*/true);
  AddRegionsFlag(*command, flags->plan.approximation);
  AddReplicasFlag(*command, flags->plan);
  command->callback([flags, &invocation] {
    if (flags->model.empty() && !flags->devices) throw CLI::RequiredError("model");
    invocation.action = [flags] { return Plan(*flags); };
  });
}

}  // namespace renga::cli

// renga plan: what would go where, before anything is bought or wired.
#include <cstdio>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "base/status_macros.h"
#include "cli/command.h"
#include "cli/plan_flags.h"
#include "cli/plan_json.h"
#include "cli/planned_cluster.h"
#include "model/architecture.h"
#include "model/footprint.h"
#include "model/gguf_file.h"
#include "nlohmann/json.hpp"
#include "partition/device_library.h"
#include "partition/explain.h"
#include "partition/known_models.h"
#include "partition/replicas.h"
#include "partition/simulator.h"
#include "partition/what_if.h"

namespace renga::cli {
namespace {

struct PlanCommandFlags {
  std::string model;
  PlannedClusterFlags cluster;
  bool simulate = false;
  partition::SimulationRequest simulation;
  bool what_if = false;
  bool json = false;
  bool devices = false;
  PlanFlags plan;
  std::string as_up;  // those of the flags that `renga up` needs to make the same plan
};

struct ModelToPlan : partition::KnownModel {
  bool is_file = false;
};

// A GGUF file, or a model that is known by name, as it is held under the approximation.
absl::StatusOr<ModelToPlan> ReadModel(const PlanCommandFlags& flags) {
  const auto file = model::GgufFile::Open(flags.model);
  if (absl::IsNotFound(file.status())) {
    if (!flags.plan.approximation.exact()) {
      return absl::InvalidArgumentError(
          "--approximate can be planned for a GGUF file, not for a model that is known by name");
    }
    RENGA_ASSIGN_OR_RETURN(partition::KnownModel known, partition::FindKnownModel(flags.model));
    return ModelToPlan{std::move(known)};
  }
  RENGA_RETURN_IF_ERROR(file.status());
  ModelToPlan read;
  read.is_file = true;
  RENGA_ASSIGN_OR_RETURN(read.model, model::ReadModel(**file));
  RENGA_ASSIGN_OR_RETURN(read.footprint, model::MeasureModel(**file, read.model));
  RENGA_ASSIGN_OR_RETURN(const model::Approximation approximation,
                         ToApproximation(flags.plan.approximation, read.model.config));
  RENGA_RETURN_IF_ERROR(
      model::CountApproximation(**file, read.model, approximation, read.footprint));
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
  RENGA_ASSIGN_OR_RETURN(const ModelToPlan read, ReadModel(flags));
  RENGA_ASSIGN_OR_RETURN(partition::PlanRequest request,
                         ToPlanRequest(flags.plan, read.model.config));
  RENGA_ASSIGN_OR_RETURN(const PlannedCluster planned,
                         ReadPlannedCluster(flags.cluster, read.footprint, flags.plan.lazy));
  const std::vector<partition::WorkerProfile>& workers = planned.cluster.workers;
  request.links = planned.cluster.links;
  // Speeds that are not measured do not vary.
  if (flags.cluster.running.empty()) request.worth_dropping = 1;
  RENGA_ASSIGN_OR_RETURN(const partition::Replicas replicas,
                         partition::PlanReplicas(read.model, read.footprint, workers, request));
  RENGA_ASSIGN_OR_RETURN(const std::vector<partition::SimulationResult> simulated,
                         SimulateAll(flags, read, workers, request, replicas));
  std::vector<partition::Change> changes;
  if (flags.what_if) {
    RENGA_ASSIGN_OR_RETURN(
        changes, partition::ExploreChanges(read.model, read.footprint, workers, request, replicas));
  }
  if (flags.json) {
    nlohmann::json json = PlanJson(replicas, workers, simulated);
    json["remarks"] = planned.remarks;
    if (flags.what_if) json["what_if"] = ChangesJson(changes);
    std::puts(json.dump().c_str());
    return absl::OkStatus();
  }
  std::fputs(partition::ExplainExperts(read.model, read.footprint).c_str(), stdout);
  std::fputs(partition::ExplainReplicas(replicas, workers).c_str(), stdout);
  for (const std::string& remark : planned.remarks) std::printf("note: %s\n", remark.c_str());
  std::printf("such a plan is made by: renga up %s%s\n",
              read.is_file ? flags.model.c_str() : "MODEL.gguf", flags.as_up.c_str());
  PrintSimulations(flags, replicas, simulated);
  if (flags.what_if) {
    std::fputs(partition::ExplainChanges(replicas, request.objective, changes).c_str(), stdout);
  }
  return absl::OkStatus();
}

// Flags of `renga up` with which it makes the same plan for the same machines: those that were
// given here, and those whose defaults there are others.
std::string FlagsForUp(const CLI::App& plan, const CLI::App& up, const PlanFlags& flags) {
  std::string text;
  for (const CLI::Option* option : plan.get_options()) {
    const std::string name = option->get_name();
    const CLI::Option* const same = up.get_option_no_throw(name);
    if (same == nullptr || !absl::StartsWith(name, "--")) continue;
    if (name == "--help" || name == "--api-key") continue;
    std::vector<std::string> values = option->results();
    if (values.empty() && name == "--tensor-parallel") {
      values = {absl::StrCat(flags.tensor_parallel)};
    } else if (values.empty()) {
      values = {option->get_default_str()};
    }
    if (option->count() == 0 && values.front() == same->get_default_str()) continue;
    const bool is_flag = option->get_expected_max() == 0;
    for (const std::string& value : values) {
      absl::StrAppend(&text, " ", name, is_flag ? "" : " ", is_flag ? "" : value);
    }
  }
  return text;
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
      "  renga plan model.gguf --running 127.0.0.1:8080 --what-if\n"
      "  renga plan model.gguf --worker 4GiB --worker 4GiB --objective many-streams "
      "--sequences 8 --replicas auto\n"
      "A cluster file (docs/PLANNING.md has all that may be in it):\n"
      "  {\"machines\": [{\"device\": \"gtx-1050-ti\", \"count\": 4}], \"network\": \"1gbe\"}");
  command->add_option("model", flags->model,
                      "GGUF file, or a known model's name with a format (llama-2-13b:Q4_K_M)");
  AddPlannedClusterFlags(*command, flags->cluster);
  command->add_flag("--what-if", flags->what_if,
                    "Also say what one more machine, one less, or faster links would give");
  command->add_flag("--json", flags->json, "The plan's figures as one line of JSON");
  command->add_flag("--devices", flags->devices,
                    "List the devices and links that are known by name");
  AddSimulationFlags(*command, *flags);
  AddPlanFlags(*command, flags->plan, /*with_sequences=*/true);
  AddReplicasFlag(*command, flags->plan);
  AddApproximationFlags(*command, flags->plan.approximation);
  command->callback([flags, command, &invocation] {
    if (flags->model.empty() && !flags->devices) throw CLI::RequiredError("model");
    // Layers of groups are not approximated.
    if (!flags->plan.approximation.exact() && command->count("--tensor-parallel") == 0) {
      flags->plan.tensor_parallel = 1;
    }
    flags->as_up = FlagsForUp(*command, *command->get_parent()->get_subcommand("up"), flags->plan);
    invocation.action = [flags] { return Plan(*flags); };
  });
}

}  // namespace renga::cli

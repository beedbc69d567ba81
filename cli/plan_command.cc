// renga plan: what would go where, before anything is bought or wired.
#include <cstdio>
#include <memory>
#include <string>
#include <vector>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "base/byte_size.h"
#include "base/status_macros.h"
#include "base/thread_pool.h"
#include "cli/command.h"
#include "cli/plan_flags.h"
#include "model/architecture.h"
#include "model/footprint.h"
#include "model/gguf_file.h"
#include "partition/explain.h"
#include "partition/planner.h"

namespace renga::cli {
namespace {

// Speed taken for a worker that states none: a small machine's memory bandwidth.
constexpr double kAssumedGigabytesPerSecond = 10;

struct PlanCommandFlags {
  std::string model;
  std::vector<std::string> workers;
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

absl::Status Plan(const PlanCommandFlags& flags) {
  RENGA_ASSIGN_OR_RETURN(const auto file, model::GgufFile::Open(flags.model));
  RENGA_ASSIGN_OR_RETURN(const model::Model model, model::ReadModel(*file));
  RENGA_ASSIGN_OR_RETURN(const model::ModelFootprint footprint, model::MeasureModel(*file, model));
  RENGA_ASSIGN_OR_RETURN(const partition::PlanRequest request,
                         ToPlanRequest(flags.plan, model.config));
  std::vector<partition::WorkerProfile> workers;
  for (const std::string& text : flags.workers) {
    RENGA_ASSIGN_OR_RETURN(workers.emplace_back(), ParseWorker(text, workers.size() + 1));
  }
  if (workers.empty()) {
    workers.push_back({.id = "this machine",
                       .memory_bytes = base::AvailableMemoryBytes(),
                       .bytes_per_second = kAssumedGigabytesPerSecond * 1e9});
  }
  RENGA_ASSIGN_OR_RETURN(const partition::Plan plan,
                         partition::MakePlan(model, footprint, workers, request));
  std::fputs(partition::ExplainPlan(plan, workers).c_str(), stdout);
  return absl::OkStatus();
}

}  // namespace

void AddPlanCommand(CLI::App& app, Invocation& invocation) {
  auto flags = std::make_shared<PlanCommandFlags>();
  CLI::App* command =
      app.add_subcommand("plan", "Say which layers would go to which worker, or why it can't fit");
  command->footer("Example:\n  renga plan model.gguf --worker 4GiB@20 --worker 4GiB@20 --context 2048");
  command->add_option("model", flags->model, "GGUF file")->required();
  command->add_option("--worker", flags->workers,
                      "A machine as MEMORY or MEMORY@GB_PER_S; repeat for each (default: this one)");
  AddPlanFlags(*command, flags->plan, /*with_sequences=*/true);
  command->callback([flags, &invocation] { invocation.action = [flags] { return Plan(*flags); }; });
}

}  // namespace renga::cli

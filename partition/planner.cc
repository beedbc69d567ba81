#include "partition/planner.h"

#include <algorithm>
#include <cmath>
#include <optional>
#include <string>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "base/byte_size.h"
#include "base/kv_type.h"
#include "base/status_macros.h"
#include "model/step.h"
#include "partition/plan_search.h"
#include "partition/refusal.h"
#include "partition/shard_costs.h"

namespace renga::partition {
namespace {

// Far above any use, and small enough that products of them with a model's sizes fit int64.
constexpr int64_t kMaxContextTokens = int64_t{1} << 22;
constexpr int64_t kMaxSequences = 1024;
constexpr int64_t kMaxStepTokens = int64_t{1} << 16;
constexpr int64_t kMaxHeadBlocks = 4096;
constexpr size_t kMaxWorkers = 1024;

absl::Status CheckRange(absl::string_view what, int64_t value, int64_t low, int64_t high) {
  if (value >= low && value <= high) return absl::OkStatus();
  return absl::InvalidArgumentError(
      absl::StrCat(what, " must be from ", low, " to ", high, ", not ", value));
}

absl::Status CheckRequest(const PlanRequest& request) {
  RENGA_RETURN_IF_ERROR(CheckRange("context", request.context_tokens, 1, kMaxContextTokens));
  RENGA_RETURN_IF_ERROR(CheckRange("number of sequences", request.max_sequences, 1, kMaxSequences));
  RENGA_RETURN_IF_ERROR(CheckRange("tokens of a step", request.max_step_tokens, 1, kMaxStepTokens));
  RENGA_RETURN_IF_ERROR(
      CheckRange("outputs of a step", request.max_step_outputs, 0, request.max_step_tokens));
  RENGA_RETURN_IF_ERROR(
      CheckRange("number of head blocks", request.head_blocks, 0, kMaxHeadBlocks));
  RENGA_RETURN_IF_ERROR(CheckRange("number of workers", request.max_workers, 0, kMaxWorkers));
  if (!base::IsKvType(request.kv_type)) {
    return absl::InvalidArgumentError("the KV cache holds F16, F32 or Q8_0 only");
  }
  return absl::OkStatus();
}

absl::Status CheckWorkers(const std::vector<WorkerProfile>& workers) {
  if (workers.empty()) return absl::FailedPreconditionError("there are no workers to plan for");
  if (workers.size() > kMaxWorkers) {
    return absl::InvalidArgumentError(
        absl::StrCat(workers.size(), " workers, at most ", kMaxWorkers, " can be planned for"));
  }
  for (const WorkerProfile& worker : workers) {
    if (worker.memory_bytes < 0) {
      return absl::InvalidArgumentError(
          absl::StrCat("worker '", worker.id, "' offers negative memory"));
    }
    if (!std::isfinite(worker.bytes_per_second) || worker.bytes_per_second <= 0) {
      return absl::InvalidArgumentError(
          absl::StrCat("worker '", worker.id, "' has no usable speed measurement"));
    }
  }
  return absl::OkStatus();
}

absl::Status CheckModel(const model::Model& model, const model::ModelFootprint& footprint) {
  if (static_cast<int64_t>(footprint.layer_weight_bytes.size()) != model.config.n_layers ||
      model.config.n_layers < 1 || model.config.vocab_size < 1) {
    return absl::InternalError(absl::StrCat("footprint of ", footprint.layer_weight_bytes.size(),
                                            " layers for a model of ", model.config.n_layers));
  }
  return absl::OkStatus();
}

std::string IdleReason(const ShardCosts& costs, const WorkerProfile& worker, int index,
                       const Candidate& candidate, const PlanSearch& search,
                       const PlanRequest& request) {
  const int64_t smallest = costs.SmallestLayerBytes();
  if (worker.memory_bytes < smallest) {
    return absl::StrCat("one layer with its KV cache and scratch needs ",
                        base::FormatByteSize(smallest), ", it offers ",
                        base::FormatByteSize(worker.memory_bytes));
  }
  for (const Candidate::TooSlow& slow : candidate.too_slow) {
    if (slow.worker == index) {
      return absl::StrFormat("too slow: with it the slowest worker takes %.2f ms, without %.2f ms",
                             slow.slowest_ms_with_it, candidate.slowest_ms);
    }
  }
  const size_t used = candidate.stages.size();
  if (request.max_workers > 0 && used == static_cast<size_t>(request.max_workers)) {
    return absl::StrCat("only ", request.max_workers, " workers were asked for");
  }
  if (used == search.stage_limit()) {
    return absl::StrCat("the model has only ", costs.layer_count(), " layers");
  }
  return "the plan does without it";
}

Plan BuildPlan(const ShardCosts& costs, const std::vector<WorkerProfile>& workers,
               const PlanRequest& request, const PlanSearch& search, const Candidate& candidate) {
  Plan plan;
  plan.stages = candidate.stages;
  plan.heads = candidate.heads;
  plan.limits = costs.limits();
  plan.slowest_ms = candidate.slowest_ms;
  plan.workers.resize(workers.size());
  for (const StagePlan& stage : plan.stages) {
    plan.workers[stage.worker].spec.layers = stage.layers;
    plan.stream_ms +=
        costs.Milliseconds(workers[stage.worker], {.layers = stage.layers, .head_rows = {}});
  }
  double slowest_head_ms = 0;
  for (const HeadPlan& head : plan.heads) {
    plan.workers[head.worker].spec.head_rows = head.rows;
    slowest_head_ms =
        std::max(slowest_head_ms, costs.HeadMilliseconds(workers[head.worker], head.rows.size()));
  }
  plan.stream_ms += slowest_head_ms;
  for (size_t i = 0; i < workers.size(); ++i) {
    WorkerPlan& worker = plan.workers[i];
    if (worker.idle()) {
      worker.idle_reason =
          IdleReason(costs, workers[i], static_cast<int>(i), candidate, search, request);
    } else {
      worker.bytes = costs.Bytes(worker.spec);
      worker.predicted_ms = costs.Milliseconds(workers[i], worker.spec);
    }
  }
  if (static_cast<int64_t>(plan.heads.size()) < request.head_blocks) {
    plan.notes.push_back(absl::StrCat(request.head_blocks, " head blocks were asked for, but only ",
                                      plan.heads.size(),
                                      " workers can hold one; a worker holds one block"));
  }
  return plan;
}

}  // namespace

model::RuntimeLimits LimitsOf(const PlanRequest& request) {
  model::RuntimeLimits limits;
  limits.kv_blocks = request.max_sequences *
                     ((request.context_tokens + model::kKvBlockTokens - 1) / model::kKvBlockTokens);
  limits.max_step_tokens = request.max_step_tokens;
  limits.max_step_outputs = request.max_step_outputs > 0
                                ? request.max_step_outputs
                                : std::min(request.max_sequences, request.max_step_tokens);
  limits.kv_type = request.kv_type;
  return limits;
}

absl::StatusOr<Plan> MakePlan(const model::Model& model, const model::ModelFootprint& footprint,
                              const std::vector<WorkerProfile>& workers,
                              const PlanRequest& request) {
  RENGA_RETURN_IF_ERROR(CheckRequest(request));
  RENGA_RETURN_IF_ERROR(CheckWorkers(workers));
  RENGA_RETURN_IF_ERROR(CheckModel(model, footprint));
  const ShardCosts costs(model, footprint, LimitsOf(request));
  const PlanSearch search(costs, workers, request);
  const std::optional<Candidate> candidate = search.Run();
  if (!candidate) return ExplainRefusal(model, footprint, workers, request);
  return BuildPlan(costs, workers, request, search, *candidate);
}

}  // namespace renga::partition

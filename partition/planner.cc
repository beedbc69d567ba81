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
#include "base/wire_type.h"
#include "model/step.h"
#include "partition/disk_plan.h"
#include "partition/embedding_place.h"
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

// Longer than anybody waits, and far from where sums of doubles stop being exact.
constexpr double kMaxMicroseconds = 1e9;
constexpr int64_t kMaxGroupAsked = 64;

bool IsTime(double us) { return us >= 0 && us <= kMaxMicroseconds; }

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
  RENGA_RETURN_IF_ERROR(
      CheckRange("stage with the embedding", request.embedding_stage, kWhereItPays, kMaxWorkers));
  RENGA_RETURN_IF_ERROR(CheckRange("number of workers", request.max_workers, 0, kMaxWorkers));
  RENGA_RETURN_IF_ERROR(
      CheckRange("workers of a tensor-parallel group", request.tensor_parallel, 0, kMaxGroupAsked));
  RENGA_RETURN_IF_ERROR(
      CheckRange("decode position", request.decode_position, 0, kMaxContextTokens));
  if (!base::IsKvType(request.kv_type)) {
    return absl::InvalidArgumentError("the KV cache holds F16, F32 or Q8_0 only");
  }
  if (!base::IsWireType(request.wire_type)) {
    return absl::InvalidArgumentError("activations travel as F32, F16 or Q8_0 only");
  }
  RENGA_RETURN_IF_ERROR(
      CheckRange("shares of the sequences", request.sequence_shares, 0, kMaxReplicas));
  if (request.min_replicas < 1 || request.max_replicas < request.min_replicas ||
      request.max_replicas > kMaxReplicas) {
    return absl::InvalidArgumentError(
        absl::StrCat("between ", request.min_replicas, " and ", request.max_replicas,
                     " replicas were asked for: from 1 to ", kMaxReplicas, " can be planned"));
  }
  if (request.max_replicas > 1 && request.objective != Objective::kManyStreams) {
    return absl::InvalidArgumentError("replicas are for many streams, not for one");
  }
  if (!IsTime(request.coordinator_us) ||
      !(request.worth_dropping > 0 && request.worth_dropping <= 1)) {
    return absl::InvalidArgumentError(
        "the coordinator's time per token must not be negative, and worth_dropping be above 0 and "
        "at most 1");
  }
  if (!(request.for_prompts >= 0 && request.for_prompts <= 1)) {
    return absl::InvalidArgumentError(
        "what is given up for prompts must be from 0 to 1 of a token's time");
  }
  return absl::OkStatus();
}

absl::Status CheckLinks(const LinkTable& links, size_t worker_count) {
  const auto is_link = [](const LinkProfile& link) {
    return IsTime(link.latency_us) && std::isfinite(link.bytes_per_second) &&
           link.bytes_per_second >= 0;
  };
  const auto count = static_cast<int>(worker_count);
  const auto is_machine = [count](int machine) {
    return machine == kCoordinator || (machine >= 0 && machine < count);
  };
  if (!is_link(links.default_link)) {
    return absl::InvalidArgumentError("the links' latency or bandwidth is no usable number");
  }
  for (const LinkTable::Pair& pair : links.pairs) {
    if (!is_link(pair.link) || !is_machine(pair.from) || !is_machine(pair.to)) {
      return absl::InvalidArgumentError(
          absl::StrCat("the link from machine ", pair.from, " to machine ", pair.to,
                       " is between unknown machines or has no usable latency and bandwidth"));
    }
  }
  return absl::OkStatus();
}

// Speeds by format are optional, but where there is one it must be usable.
bool HasUsableSpeeds(const WorkerProfile& worker) {
  const auto is_speed = [](double speed) { return std::isfinite(speed) && speed > 0; };
  for (const auto& [type, speed] : worker.bytes_per_second_of) {
    if (!is_speed(speed)) return false;
  }
  return is_speed(worker.bytes_per_second) && IsTime(worker.layer_us) &&
         (worker.prefill_bytes_per_second == 0 || is_speed(worker.prefill_bytes_per_second)) &&
         (worker.disk_bytes_per_second == 0 || is_speed(worker.disk_bytes_per_second));
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
    if (!HasUsableSpeeds(worker)) {
      return absl::InvalidArgumentError(
          absl::StrCat("worker '", worker.id, "' has no usable speed measurement"));
    }
  }
  return absl::OkStatus();
}

absl::Status CheckModel(const model::Model& model, const model::ModelFootprint& footprint,
                        const PlanRequest& request) {
  if (model.config.has_experts() && request.tensor_parallel > 1) {
    return absl::UnimplementedError(
        "layers with experts are not divided over tensor-parallel groups: leave out "
        "--tensor-parallel, and each worker gets whole layers");
  }
  if (static_cast<int64_t>(footprint.layers.size()) != model.config.n_layers ||
      model.config.n_layers < 1 || model.config.vocab_size < 1) {
    return absl::InternalError(absl::StrCat("footprint of ", footprint.layers.size(),
                                            " layers for a model of ", model.config.n_layers));
  }
  return absl::OkStatus();
}

std::string IdleReason(const PlanSearch& search, const WorkerProfile& worker, int index,
                       const Candidate& candidate, const PlanRequest& request) {
  const ShardCosts& bytes = search.costs().bytes();
  const int64_t smallest = bytes.SmallestLayerBytes();
  if (worker.spare && worker.memory_bytes == 0) {
    return "memory beside a card: the model fits without it";
  }
  if (worker.memory_bytes < smallest) {
    return absl::StrCat("one layer with its KV cache and scratch needs ",
                        base::FormatByteSize(smallest), ", it offers ",
                        base::FormatByteSize(worker.memory_bytes));
  }
  const double with = candidate.with_one_more[search.kinds().KindOf(index)];
  if (std::isfinite(with)) {
    return absl::StrFormat("%s takes %.2f ms, without it %.2f ms",
                           request.objective == Objective::kOneStream
                               ? "it would only add a hop: with it a token"
                               : "too slow: with it the slowest worker",
                           with, candidate.found_ms);
  }
  int64_t used = 0;
  for (const StagePlan& stage : candidate.stages) {
    used += static_cast<int64_t>(stage.members.size());
  }
  if (request.max_workers > 0 && used == request.max_workers) {
    return absl::StrCat("only ", request.max_workers, " workers were asked for");
  }
  if (static_cast<int64_t>(candidate.stages.size()) == bytes.layer_count()) {
    return absl::StrCat("the model has only ", bytes.layer_count(), " layers");
  }
  return "the plan does without it";
}

Plan BuildPlan(const PlanSearch& search, const std::vector<WorkerProfile>& workers,
               const PlanRequest& request, const Candidate& candidate) {
  const ShardCosts& bytes = search.costs().bytes();
  Plan plan;
  plan.stages = candidate.stages;
  plan.heads = candidate.heads;
  plan.limits = bytes.limits();
  plan.times = candidate.times;
  plan.stream_ms = candidate.times.stream();
  plan.slowest_ms = candidate.times.slowest;
  plan.bound_ms = candidate.bound_ms;
  plan.exact = candidate.exact;
  plan.kept = candidate.kept;
  plan.given_up_ms = candidate.given_up_ms;
  plan.prompts_gain = candidate.prompts_gain;
  plan.workers.resize(workers.size());
  const std::vector<model::ShardSpec> specs = SpecsOf(candidate, workers.size());
  for (size_t i = 0; i < workers.size(); ++i) {
    WorkerPlan& worker = plan.workers[i];
    worker.spec = specs[i];
    if (worker.idle()) {
      worker.idle_reason = IdleReason(search, workers[i], static_cast<int>(i), candidate, request);
    } else {
      worker.bytes = bytes.Bytes(worker.spec);
      worker.predicted_ms = search.costs().WorkerMs(static_cast<int>(i), worker.spec);
    }
  }
  if (request.near_rows != nullptr && plan.heads.size() < 2) {
    plan.notes.push_back(
        "near rows were asked for, but no other worker has room for the rest: one holds all rows");
  }
  if (static_cast<int64_t>(plan.heads.size()) < request.head_blocks) {
    plan.notes.push_back(absl::StrCat(request.head_blocks, " head blocks were asked for, but only ",
                                      plan.heads.size(),
                                      " workers can hold one; a worker holds one block"));
  }
  return plan;
}

// The workers when the spare ones offer nothing; nullopt when no others are there, or none spare.
std::optional<std::vector<WorkerProfile>> WithoutSpares(const std::vector<WorkerProfile>& workers) {
  std::vector<WorkerProfile> without = workers;
  size_t spares = 0;
  for (WorkerProfile& worker : without) {
    if (!worker.spare) continue;
    worker.memory_bytes = 0;
    worker.disk_bytes_per_second = 0;
    ++spares;
  }
  if (spares == 0 || spares == workers.size()) return std::nullopt;
  return without;
}

// A plan that keeps everything in memory.
std::optional<Plan> MakeMemoryPlan(const model::Model& model,
                                   const model::ModelFootprint& footprint,
                                   const std::vector<WorkerProfile>& workers,
                                   const PlanRequest& request) {
  const ShardCosts bytes(model, footprint, LimitsOf(request));
  PlanSearch search(bytes, workers, request);
  const std::optional<Candidate> candidate = search.Run();
  if (!candidate) return std::nullopt;
  Plan plan = BuildPlan(search, workers, request, *candidate);
  PlaceEmbedding(search.costs(), workers, plan);
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
  limits.wire_type = request.wire_type;
  limits.approximation = request.approximation;
  limits.near_rows = request.near_rows;
  return limits;
}

absl::Status CheckPlanInput(const model::Model& model, const model::ModelFootprint& footprint,
                            const std::vector<WorkerProfile>& workers, const PlanRequest& request) {
  RENGA_RETURN_IF_ERROR(CheckRequest(request));
  RENGA_RETURN_IF_ERROR(CheckWorkers(workers));
  RENGA_RETURN_IF_ERROR(CheckLinks(request.links, workers.size()));
  return CheckModel(model, footprint, request);
}

absl::StatusOr<Plan> MakePlan(const model::Model& model, const model::ModelFootprint& footprint,
                              const std::vector<WorkerProfile>& workers,
                              const PlanRequest& request) {
  RENGA_RETURN_IF_ERROR(CheckPlanInput(model, footprint, workers, request));
  std::optional<Plan> plan = FindPlan(model, footprint, workers, request);
  if (plan) return *std::move(plan);
  return ExplainRefusal(model, footprint, workers, request);
}

std::optional<Plan> FindPlan(const model::Model& model, const model::ModelFootprint& footprint,
                             const std::vector<WorkerProfile>& workers,
                             const PlanRequest& request) {
  std::optional<Plan> plan;
  if (const auto without = WithoutSpares(workers)) {
    plan = MakeMemoryPlan(model, footprint, *without, request);
  }
  if (!plan) plan = MakeMemoryPlan(model, footprint, workers, request);
  if (!plan && request.lazy) plan = MakeDiskPlan(model, footprint, workers, request);
  return plan;
}

std::optional<Plan> MakeDiskPlan(const model::Model& model, const model::ModelFootprint& footprint,
                                 const std::vector<WorkerProfile>& workers,
                                 const PlanRequest& request) {
  const ShardCosts bytes(model, footprint, LimitsOf(request));
  const auto stretched = StretchByDisks(bytes, workers, request);
  if (!stretched) return std::nullopt;
  PlanSearch search(bytes, *stretched, request);
  const std::optional<Candidate> candidate = search.Run();
  if (!candidate) return std::nullopt;
  Plan plan = BuildPlan(search, *stretched, request, *candidate);
  AddDisks(bytes, workers, request, plan);
  if (request.embedding_stage > 0) {
    plan.notes.push_back(
        "the embedding stays with the coordinator: the workers have no room for all weights");
  }
  return plan;
}

}  // namespace renga::partition

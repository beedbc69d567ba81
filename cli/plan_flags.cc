#include "cli/plan_flags.h"

#include <algorithm>
#include <memory>
#include <optional>
#include <utility>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "base/data_type.h"
#include "base/file.h"
#include "base/kv_type.h"
#include "base/status_macros.h"
#include "base/wire_type.h"

namespace renga::cli {
namespace {

absl::StatusOr<base::DataType> ParseWireType(const std::string& name, int64_t d_model) {
  const std::optional<base::DataType> type =
      name == "q8" || name == "Q8" ? base::DataType::kQ8_0 : base::DataTypeFromName(name);
  if (!type.has_value() || !base::IsWireType(*type)) {
    return absl::InvalidArgumentError(
        absl::StrCat("activations can travel as f32, f16 or q8: --wire cannot be '", name, "'"));
  }
  if (d_model % base::GetDataTypeInfo(*type).block_elements != 0) {
    return absl::InvalidArgumentError(absl::StrCat(
        "this model's rows of ", d_model,
        " numbers are no whole blocks of 32: use --wire f16 or f32, not '", name, "'"));
  }
  return *type;
}

}  // namespace

void AddPlanFlags(CLI::App& command, PlanFlags& flags, bool with_sequences) {
  command
      .add_option("--context", flags.context,
                  absl::StrCat("Tokens of context per sequence (default: the model's own, at "
                               "most ",
                               kDefaultContext, ")"))
      ->check(CLI::Range(int64_t{1}, int64_t{1} << 24));
  command.add_option("--kv", flags.kv_type, "Number format of keys and values: F16, F32 or Q8_0")
      ->capture_default_str();
  command
      .add_option("--wire", flags.wire,
                  "Number format of activations between workers: f32, f16 (half the bytes) or q8 "
                  "(about a quarter); narrow ones change the last bits of answers")
      ->capture_default_str();
  command
      .add_option("--head-blocks", flags.head_blocks,
                  "Cut the output matrix into this many blocks (default: as few as fit)")
      ->check(CLI::Range(0, 4096));
  command
      .add_option("--speculation", flags.speculation,
                  "Verify guesses of the next tokens, several in a step, where that is faster: "
                  "auto; lookup (whenever earlier text suggests some); off. The answer is the same")
      ->capture_default_str();
  command
      .add_option("--objective", flags.objective,
                  "What to make fast: the answer to one request, or many at one time")
      ->capture_default_str()
      ->check(CLI::IsMember({"one-stream", "many-streams"}));
  command
      .add_option("--tensor-parallel", flags.tensor_parallel,
                  "Workers that compute each layer together: 1 none, 0 as many as is fastest by "
                  "the measured links, or a number")
      ->capture_default_str()
      ->check(CLI::Range(0, 64));
  command
      .add_option("--group-sums", flags.group_sums,
                  "How workers that compute each layer together add up: over sockets; over nccl "
                  "(NVIDIA cards that have it; unencrypted, so only where the network is trusted); "
                  "or auto: nccl for cards of one machine, else sockets")
      ->capture_default_str()
      ->check(CLI::IsMember({"auto", "sockets", "nccl"}));
  command
      .add_option(
          "--embedding", flags.embedding,
          "Who turns tokens into numbers: coordinator, the first worker of a stage (1, 2, "
          "...), or auto: stage 1 where it has room and its link is slow; the answer is the "
          "same")
      ->capture_default_str();
  command.add_flag("--lazy", flags.lazy,
                   "Answer before all weights are in memory, and read from the workers' disks for "
                   "every token what does not fit there; the answer is the same");
  command.add_option("--near-rows", flags.near_rows,
                     "Keep this share of the output matrix with the last stage, e.g. 25%, and the "
                     "other rows on another machine: first the rows that --regions says texts "
                     "use; the answer is the same");
  command.add_flag("--optimistic", flags.optimistic,
                   "Begin the next token with what the near rows say, before the others have "
                   "answered, and take it back where they disagree; the answer is the same");
  if (with_sequences) {
    command
        .add_option("--sequences", flags.sequences,
                    absl::StrCat("Conversations answered at the same time; others wait (default: "
                                 "1; with --replicas ",
                                 kDefaultServedSequences, ", or as many as replicas)"))
        ->check(CLI::Range(1, 4096));
  }
}

void AddReplicasFlag(CLI::App& command, PlanFlags& flags) {
  command
      .add_option("--replicas", flags.replicas,
                  "Pipelines beside each other, each with the whole model on workers of its own: a "
                  "number, or auto (as many as give the most tokens per second); each request is "
                  "answered by one of them, and the answer is the same")
      ->capture_default_str();
}

void AddDraftModelFlag(CLI::App& command, PlanFlags& flags) {
  command.add_option(
      "--draft-model", flags.draft_model,
      "GGUF file of a small model with the same tokens, computed on this machine: it "
      "guesses where earlier text does not help, if that is faster");
}

int64_t SequencesOf(const PlanFlags& flags) {
  if (flags.sequences > 0) return flags.sequences;
  if (flags.replicas == "1") return 1;
  int64_t replicas = 0;
  if (!absl::SimpleAtoi(flags.replicas, &replicas)) return kDefaultServedSequences;  // "auto"
  return std::clamp(replicas, kDefaultServedSequences, partition::kMaxReplicas);
}

absl::StatusOr<serving::SpeculationMode> ToSpeculationMode(const PlanFlags& flags) {
  const std::optional<serving::SpeculationMode> mode =
      serving::SpeculationModeFromName(flags.speculation);
  if (mode.has_value()) return *mode;
  return absl::InvalidArgumentError(
      absl::StrCat("--speculation can be auto, off or lookup, not '", flags.speculation, "'"));
}

// As PlanRequest::embedding_stage. More stages than any plan has are a slip of the keyboard.
constexpr int64_t kMostStages = 1024;
static absl::StatusOr<int64_t> ParseEmbedding(const std::string& place) {
  if (place == "auto") return partition::kWhereItPays;
  if (place == "coordinator") return 0;
  int64_t stage = 0;
  if (absl::SimpleAtoi(place, &stage) && stage > 0 && stage <= kMostStages) return stage;
  return absl::InvalidArgumentError(absl::StrCat(
      "--embedding can be auto, coordinator or the number of a stage, not '", place, "'"));
}

static absl::Status AddReplicas(const PlanFlags& flags, partition::PlanRequest& request) {
  if (flags.replicas == "auto") {
    request.max_replicas = partition::kMaxReplicas;
  } else if (!absl::SimpleAtoi(flags.replicas, &request.max_replicas) || request.max_replicas < 1 ||
             request.max_replicas > partition::kMaxReplicas) {
    return absl::InvalidArgumentError(absl::StrCat("--replicas can be auto, or a number from 1 to ",
                                                   partition::kMaxReplicas, ", not '",
                                                   flags.replicas, "'"));
  } else {
    request.min_replicas = request.max_replicas;
  }
  if (request.max_replicas > 1 && request.objective != partition::Objective::kManyStreams) {
    return absl::InvalidArgumentError(
        "replicas are for many requests at one time: with --replicas, say --objective many-streams "
        "too");
  }
  return absl::OkStatus();
}

// The part of the request that says which rows of the output matrix are near.
static absl::Status AddNearRows(const PlanFlags& flags, const model::ModelConfig& config,
                                partition::PlanRequest& request) {
  if (flags.optimistic && flags.near_rows.empty() && flags.head_blocks < 2) {
    return absl::InvalidArgumentError(
        "--optimistic needs rows of the output matrix in several places: say --near-rows 25%");
  }
  if (flags.near_rows.empty()) return absl::OkStatus();
  if (request.approximation.hot_rows != nullptr) {
    return absl::InvalidArgumentError(
        "--near-rows and --approximate hot-rows do not go together: both divide the output matrix");
  }
  RENGA_ASSIGN_OR_RETURN(
      model::RowSet rows,
      ParseHotRows(flags.near_rows, flags.approximation.regions, config.vocab_size));
  // With all of them near there is nothing to divide.
  if (static_cast<int64_t>(rows.size()) < config.vocab_size) {
    request.near_rows = std::make_shared<const model::RowSet>(std::move(rows));
  }
  return absl::OkStatus();
}

// What is known of how a mixture's experts are used.
static absl::Status AddExpertHits(const PlanFlags& flags, const model::ModelConfig& config,
                                  partition::PlanRequest& request) {
  const std::string& path = flags.approximation.regions;
  if (!config.has_experts() || path.empty()) return absl::OkStatus();
  RENGA_ASSIGN_OR_RETURN(const std::string report, base::ReadFile(path));
  absl::StatusOr<partition::ExpertHits> hits = partition::ParseExpertHits(report, config);
  if (!hits.ok()) return base::Annotate(hits.status(), path);
  request.expert_hits = std::make_shared<const partition::ExpertHits>(*std::move(hits));
  return absl::OkStatus();
}

absl::StatusOr<partition::PlanRequest> ToPlanRequest(const PlanFlags& flags,
                                                     const model::ModelConfig& config) {
  const std::optional<base::DataType> kv_type = base::DataTypeFromName(flags.kv_type);
  if (!kv_type.has_value() || !base::IsKvType(*kv_type)) {
    return absl::InvalidArgumentError(absl::StrCat(
        "keys and values can be F16, F32 or Q8_0: --kv cannot be '", flags.kv_type, "'"));
  }
  RENGA_ASSIGN_OR_RETURN(const serving::SpeculationMode speculation, ToSpeculationMode(flags));
  partition::PlanRequest request;
  request.context_tokens =
      flags.context > 0 ? flags.context : std::min(config.context_length, kDefaultContext);
  request.max_sequences = SequencesOf(flags);
  request.kv_type = *kv_type;
  RENGA_ASSIGN_OR_RETURN(request.wire_type, ParseWireType(flags.wire, config.d_model));
  request.head_blocks = flags.head_blocks;
  request.objective = flags.objective == "one-stream" ? partition::Objective::kOneStream
                                                      : partition::Objective::kManyStreams;
  request.tensor_parallel = flags.tensor_parallel;
  request.group_sums = flags.group_sums == "nccl"      ? partition::GroupSums::kNccl
                       : flags.group_sums == "sockets" ? partition::GroupSums::kSockets
                                                       : partition::GroupSums::kAuto;
  RENGA_RETURN_IF_ERROR(AddReplicas(flags, request));
  RENGA_ASSIGN_OR_RETURN(request.embedding_stage, ParseEmbedding(flags.embedding));
  request.lazy = flags.lazy;
  RENGA_ASSIGN_OR_RETURN(request.approximation, ToApproximation(flags.approximation, config));
  if (request.approximation.late_percent > 0 && (flags.lazy || flags.tensor_parallel != 1)) {
    return absl::InvalidArgumentError(
        "--approximate late-slice goes neither with --lazy nor with --tensor-parallel");
  }
  if (request.approximation.deadline_ms > 0 && (!flags.lazy || flags.tensor_parallel != 1)) {
    return absl::InvalidArgumentError(
        "--approximate deadline is for weights that are read from disk: it needs --lazy, and goes "
        "not with --tensor-parallel");
  }
  if (request.approximation.missing_percent > 0 && flags.tensor_parallel != 1) {
    return absl::InvalidArgumentError("--approximate missing does not go with --tensor-parallel");
  }
  RENGA_RETURN_IF_ERROR(AddNearRows(flags, config, request));
  RENGA_RETURN_IF_ERROR(AddExpertHits(flags, config, request));
  if (request.approximation.cold_neurons != nullptr && flags.lazy) {
    return absl::InvalidArgumentError("--approximate cold-neurons does not go with --lazy");
  }
  if (request.approximation.leaves_out_parts() && flags.lazy) {
    return absl::InvalidArgumentError(
        "--approximate without-layers does not go with --lazy: what is left out is read from no "
        "disk");
  }
  // A row for each sequence, and one draft for them to share.
  if (speculation != serving::SpeculationMode::kOff) {
    request.max_step_outputs =
        std::min(request.max_sequences + serving::kMaxDraftTokens, request.max_step_tokens);
  }
  return request;
}

}  // namespace renga::cli

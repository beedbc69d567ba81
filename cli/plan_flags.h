// Flags that decide how much memory a plan needs, shared by every command that loads or plans.
#ifndef RENGA_CLI_PLAN_FLAGS_H_
#define RENGA_CLI_PLAN_FLAGS_H_

#include <cstdint>
#include <string>

#include "CLI/App.hpp"
#include "absl/status/statusor.h"
#include "cli/approximation_flags.h"
#include "coordinator/serving/speculation_policy.h"
#include "model/model_config.h"
#include "partition/plan.h"

namespace renga::cli {

struct PlanFlags {
  int64_t context = 0;    // 0: the model's own, at most kDefaultContext
  int64_t sequences = 0;  // 0: as SequencesOf says
  int64_t head_blocks = 0;
  std::string kv_type = "F16";
  std::string speculation = "auto";
  std::string draft_model;  // GGUF file; empty: none
  std::string wire = "f32";
  std::string objective = "many-streams";
  int64_t tensor_parallel = 1;  // as partition::PlanRequest's
  std::string group_sums = "auto";
  std::string replicas = "1";  // a number, or "auto"
  std::string embedding = "auto";
  bool lazy = false;
  std::string near_rows;  // "25%"; empty: blocks of the head are ranges of ids
  bool optimistic = false;
  ApproximationFlags approximation;  // with flags of its own: AddApproximationFlags
};

inline constexpr int64_t kDefaultContext = 4096;
// A server has more than one user.
inline constexpr int64_t kDefaultServedSequences = 4;

// Adds --context, --kv, --wire, --head-blocks, --objective, --tensor-parallel, --group-sums,
// --embedding, --lazy, --near-rows, --optimistic and --speculation; with `with_sequences` also
// --sequences.
void AddPlanFlags(CLI::App& command, PlanFlags& flags, bool with_sequences);

// --replicas, for commands that answer many requests at one time.
void AddReplicasFlag(CLI::App& command, PlanFlags& flags);

// --draft-model, for commands that run the model.
void AddDraftModelFlag(CLI::App& command, PlanFlags& flags);

// How many conversations there are at one time: as --sequences says, else one; where --replicas
// asks for several pipelines, which one conversation could not use, kDefaultServedSequences, or as
// many as replicas.
int64_t SequencesOf(const PlanFlags& flags);

// kInvalidArgument when --speculation is none of its values.
absl::StatusOr<serving::SpeculationMode> ToSpeculationMode(const PlanFlags& flags);

// kInvalidArgument for a number format that keys and values, or this model's rows of activations,
// can't have, and as ToSpeculationMode.
absl::StatusOr<partition::PlanRequest> ToPlanRequest(const PlanFlags& flags,
                                                     const model::ModelConfig& config);

}  // namespace renga::cli

#endif  // RENGA_CLI_PLAN_FLAGS_H_

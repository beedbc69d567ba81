// Flags that decide how much memory a plan needs, shared by every command that loads or plans.
#ifndef RENGA_CLI_PLAN_FLAGS_H_
#define RENGA_CLI_PLAN_FLAGS_H_

#include <cstdint>
#include <string>

#include "CLI/App.hpp"
#include "absl/status/statusor.h"
#include "model/model_config.h"
#include "partition/plan.h"

namespace renga::cli {

struct PlanFlags {
  int64_t context = 0;  // 0: the model's own, at most kDefaultContext
  int64_t sequences = 1;
  int64_t head_blocks = 0;
  std::string kv_type = "F16";
};

inline constexpr int64_t kDefaultContext = 4096;
// A server has more than one user.
inline constexpr int64_t kDefaultServedSequences = 4;

// Adds --context, --kv and --head-blocks; with `with_sequences` also --sequences.
void AddPlanFlags(CLI::App& command, PlanFlags& flags, bool with_sequences);

// kInvalidArgument for a number format that KV can't have.
absl::StatusOr<partition::PlanRequest> ToPlanRequest(const PlanFlags& flags,
                                                     const model::ModelConfig& config);

}  // namespace renga::cli

#endif  // RENGA_CLI_PLAN_FLAGS_H_

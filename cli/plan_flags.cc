#include "cli/plan_flags.h"

#include <algorithm>
#include <optional>

#include "absl/strings/str_cat.h"
#include "base/data_type.h"
#include "base/kv_type.h"

namespace renga::cli {

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
      .add_option("--head-blocks", flags.head_blocks,
                  "Cut the output matrix into this many blocks (default: as few as fit)")
      ->check(CLI::Range(0, 4096));
  if (with_sequences) {
    command.add_option("--sequences", flags.sequences, "Conversations answered at the same time")
        ->capture_default_str()
        ->check(CLI::Range(1, 4096));
  }
}

absl::StatusOr<partition::PlanRequest> ToPlanRequest(const PlanFlags& flags,
                                                     const model::ModelConfig& config) {
  const std::optional<base::DataType> kv_type = base::DataTypeFromName(flags.kv_type);
  if (!kv_type.has_value() || !base::IsKvType(*kv_type)) {
    return absl::InvalidArgumentError(absl::StrCat(
        "keys and values can be F16, F32 or Q8_0: --kv cannot be '", flags.kv_type, "'"));
  }
  partition::PlanRequest request;
  request.context_tokens =
      flags.context > 0 ? flags.context : std::min(config.context_length, kDefaultContext);
  request.max_sequences = flags.sequences;
  request.kv_type = *kv_type;
  request.head_blocks = flags.head_blocks;
  return request;
}

}  // namespace renga::cli

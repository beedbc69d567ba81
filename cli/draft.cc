#include "cli/draft.h"

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "cli/local_cluster.h"

namespace renga::cli {

Draft::Draft(std::unique_ptr<LocalCluster> cluster) : cluster_(std::move(cluster)) {}
Draft::~Draft() = default;

absl::StatusOr<std::unique_ptr<Draft>> Draft::Start(const ClusterFlags& large) {
  RENGA_ASSIGN_OR_RETURN(const serving::SpeculationMode mode, ToSpeculationMode(large.plan));
  if (mode != serving::SpeculationMode::kAuto) {
    return absl::InvalidArgumentError(absl::StrCat("--draft-model is for --speculation auto, not '",
                                                   large.plan.speculation, "'"));
  }
  ClusterFlags flags = large;
  flags.model = large.plan.draft_model;
  flags.workers = 0;
  flags.listen.clear();
  flags.devices.memory.clear();
  flags.devices.host_memory.clear();
  flags.plan = PlanFlags();
  flags.plan.context = large.plan.context;
  flags.plan.sequences = SequencesOf(large.plan);
  flags.plan.speculation = "off";
  absl::StatusOr<std::unique_ptr<LocalCluster>> cluster = LocalCluster::Start(flags);
  RENGA_RETURN_IF_ERROR(
      base::Annotate(cluster.status(), absl::StrCat("the draft model ", flags.model)));
  return std::unique_ptr<Draft>(new Draft(*std::move(cluster)));
}

absl::Status Draft::CheckTokens(const model::Tokenizer& large) const {
  const model::Tokenizer& small = cluster_->tokenizer();
  bool same = small.vocab_size() == large.vocab_size();
  for (model::TokenId id = 0; same && id < large.vocab_size(); ++id) {
    same = small.Piece(id) == large.Piece(id);
  }
  if (same) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrCat("the draft model's ", small.vocab_size(),
                                                 " tokens are not the model's ", large.vocab_size(),
                                                 ": choose a smaller model of the same family"));
}

cluster::PipelineSource* Draft::source() const { return &cluster_->coordinator().manager(); }

}  // namespace renga::cli

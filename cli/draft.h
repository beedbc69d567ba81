// A small model in this process that guesses for the large one (coordinator/serving/draft_model.h).
#ifndef RENGA_CLI_DRAFT_H_
#define RENGA_CLI_DRAFT_H_

#include <memory>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "cli/cluster_flags.h"
#include "coordinator/serving/scheduler.h"
#include "model/tokenizer.h"

namespace renga::cli {

class LocalCluster;

// Loaded and ready. Outlives the scheduler that uses its source.
class Draft {
 public:
  // Loads `model` here for as many sequences and as much context as the large model is planned for.
  // `large` are that one's flags; blocks, with progress.
  static absl::StatusOr<std::unique_ptr<Draft>> Start(const ClusterFlags& large);
  ~Draft();
  Draft(const Draft&) = delete;
  Draft& operator=(const Draft&) = delete;

  // kInvalidArgument when the large model's tokens are others: guesses would mean something else.
  absl::Status CheckTokens(const model::Tokenizer& large) const;
  cluster::PipelineSource* source() const;

 private:
  explicit Draft(std::unique_ptr<LocalCluster> cluster);

  const std::unique_ptr<LocalCluster> cluster_;
};

}  // namespace renga::cli

#endif  // RENGA_CLI_DRAFT_H_

// How much of what tokens choose is in memory when some of a mixture's experts are: what plans
// expect of caches of experts.
#ifndef RENGA_PARTITION_EXPERT_HITS_H_
#define RENGA_PARTITION_EXPERT_HITS_H_

#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "model/model_config.h"

namespace renga::partition {

// As `renga regions` measured it over texts. Between its points straight lines are drawn, which
// begin at nothing and end where all experts are in memory.
struct ExpertHits {
  struct Point {
    double share = 0;  // of all experts, in memory: above 0, at most 1
    double hits = 0;   // of what tokens choose, 0 to 1
  };
  std::vector<Point> points;  // shares and hits ascend
};

// From the JSON that `renga regions` writes. kInvalidArgument when it is none, or of a model with
// other experts.
absl::StatusOr<ExpertHits> ParseExpertHits(absl::string_view report,
                                           const model::ModelConfig& config);

// Of what tokens choose, the part that is not in memory when `held` of the experts are, 0 to 1.
// Without a measurement (null) all experts are taken to be used alike.
double MissedChoices(const ExpertHits* measured, double held);

}  // namespace renga::partition

#endif  // RENGA_PARTITION_EXPERT_HITS_H_

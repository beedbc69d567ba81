// Requests from beginning to end, waited for: what the commands that are no servers need.
#ifndef RENGA_CLI_REQUESTS_H_
#define RENGA_CLI_REQUESTS_H_

#include <functional>
#include <span>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "cli/local_cluster.h"
#include "coordinator/serving/request.h"

namespace renga::cli {

struct GeneratedTokens {
  std::vector<model::TokenId> tokens;
  serving::GenerateResult result;
};

// Blocks until the request is done. Ctrl-C cancels it: kCancelled.
absl::StatusOr<GeneratedTokens> Generate(LocalCluster& cluster,
                                         const serving::GenerateRequest& request);

// The same for several requests side by side; the first error, if any.
absl::StatusOr<std::vector<GeneratedTokens>> GenerateAll(
    LocalCluster& cluster, const std::vector<serving::GenerateRequest>& requests);

// Blocks; `on_row` gets each position's logits in order.
absl::Status Score(LocalCluster& cluster, const serving::ScoreRequest& request,
                   std::function<absl::Status(int64_t, std::span<const float>)> on_row);

}  // namespace renga::cli

#endif  // RENGA_CLI_REQUESTS_H_

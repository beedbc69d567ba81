// The cluster's status as the JSON that /renga/status gives and `renga status` reads.
#ifndef RENGA_CLI_STATUS_JSON_H_
#define RENGA_CLI_STATUS_JSON_H_

#include "coordinator/cluster/cluster_status.h"
#include "coordinator/serving/stats.h"
#include "nlohmann/json.hpp"

namespace renga::cli {

nlohmann::json ToJson(const cluster::ClusterStatus& status);
// What guessing tokens has done so far.
nlohmann::json SpeculationJson(const serving::ServingStats& stats);

}  // namespace renga::cli

#endif  // RENGA_CLI_STATUS_JSON_H_

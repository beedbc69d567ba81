// A plan as JSON, for scripts: what `renga plan --json` prints.
#ifndef RENGA_CLI_PLAN_JSON_H_
#define RENGA_CLI_PLAN_JSON_H_

#include <string>
#include <vector>

#include "nlohmann/json.hpp"
#include "partition/plan.h"
#include "partition/replicas.h"
#include "partition/simulator.h"
#include "partition/what_if.h"

namespace renga::cli {

// The first plan's figures, where there is one; those of each ("plans"), and of all together, where
// there are several. Ranges are [first, behind the last], bytes whole numbers, times ms.
// `simulated` has a result for each replica, or for the first ones, or for none.
nlohmann::json PlanJson(const partition::Replicas& replicas,
                        const std::vector<partition::WorkerProfile>& workers,
                        const std::vector<partition::SimulationResult>& simulated);

// The list under "what_if".
nlohmann::json ChangesJson(const std::vector<partition::Change>& changes);

}  // namespace renga::cli

#endif  // RENGA_CLI_PLAN_JSON_H_

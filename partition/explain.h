// A plan as text for people.
#ifndef RENGA_PARTITION_EXPLAIN_H_
#define RENGA_PARTITION_EXPLAIN_H_

#include <string>
#include <vector>

#include "partition/plan.h"

namespace renga::partition {

// A table of fixed-width columns, one line per worker in the order of stages, then head-only
// workers, then the idle ones with their reasons; below it the limits, the prediction and the
// notes. `workers` are the profiles the plan was made from. Ends with a newline.
std::string ExplainPlan(const Plan& plan, const std::vector<WorkerProfile>& workers);

}  // namespace renga::partition

#endif  // RENGA_PARTITION_EXPLAIN_H_

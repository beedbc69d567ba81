// A plan as text for people.
#ifndef RENGA_PARTITION_EXPLAIN_H_
#define RENGA_PARTITION_EXPLAIN_H_

#include <string>
#include <vector>

#include "model/architecture.h"
#include "model/footprint.h"
#include "partition/plan.h"
#include "partition/replicas.h"
#include "partition/what_if.h"

namespace renga::partition {

// A table of fixed-width columns, one line per worker in the order of stages, then head-only
// workers, then the idle ones with their reasons; below it the limits, where a token's time goes,
// and the notes. `workers` are the profiles the plan was made from. Ends with a newline.
std::string ExplainPlan(const Plan& plan, const std::vector<WorkerProfile>& workers);

// The same of several pipelines: one table, which says whose each worker is, and then each
// replica's times and what all of them do together.
std::string ExplainReplicas(const Replicas& replicas, const std::vector<WorkerProfile>& workers);

// A line for each change, beside what the plan, or all replicas, take now.
std::string ExplainChanges(const Replicas& replicas, Objective objective,
                           const std::vector<Change>& changes);

// What of a mixture of experts a token reads, as a line; "" for other models.
std::string ExplainExperts(const model::Model& model, const model::ModelFootprint& footprint);

}  // namespace renga::partition

#endif  // RENGA_PARTITION_EXPLAIN_H_

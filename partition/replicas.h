// Several independent pipelines where the workers can hold the model more than once: each replica
// holds the whole model on workers of its own, and each sequence is computed by one replica. That
// adds no hop and waits for nobody, so many streams are faster than through one long pipeline whose
// stages are never quite equal. A single stream gains nothing.
#ifndef RENGA_PARTITION_REPLICAS_H_
#define RENGA_PARTITION_REPLICAS_H_

#include <cstdint>
#include <vector>

#include "absl/status/statusor.h"
#include "model/architecture.h"
#include "model/footprint.h"
#include "partition/plan.h"

namespace renga::partition {

struct Replicas {
  // The one with the least time per token first. Each speaks of all workers: those of the other
  // replicas are idle in it, and its reason for that says where they are.
  std::vector<Plan> plans;
  // Of all replicas together while all of their stages are busy; a step has a token for each
  // sequence in it.
  double steps_per_second = 0;
  // No replicas of so many give more. With `exact` no other division of the workers is better.
  double bound_steps_per_second = 0;
  bool exact = false;
};

// As `request` for each of `replicas` pipelines: they, or request.sequence_shares of them, share
// its sequences out evenly, rounded up.
PlanRequest ShareOfRequest(PlanRequest request, int64_t replicas);

// Chooses how many replicas (request.min_replicas to max_replicas, and no more than there are
// sequences), and the workers of each; then plans each as MakePlan does. Looks at every division of
// some nine different workers (six where groups are allowed), and of many more of few kinds; above
// that a bounded search, with steps per second that no division can beat.
//
// kResourceExhausted when so many replicas do not fit, with how many would. MakePlan's errors.
absl::StatusOr<Replicas> PlanReplicas(const model::Model& model,
                                      const model::ModelFootprint& footprint,
                                      const std::vector<WorkerProfile>& workers,
                                      const PlanRequest& request);

}  // namespace renga::partition

#endif  // RENGA_PARTITION_REPLICAS_H_

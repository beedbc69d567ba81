// How workers are shared out among independent pipelines, each of which holds the whole model.
// Internal to PlanReplicas (replicas.h).
#ifndef RENGA_PARTITION_REPLICA_SEARCH_H_
#define RENGA_PARTITION_REPLICA_SEARCH_H_

#include <cstdint>
#include <map>
#include <optional>
#include <utility>
#include <vector>

#include "model/architecture.h"
#include "model/footprint.h"
#include "partition/machine_kinds.h"
#include "partition/plan.h"

namespace renga::partition {

// How many workers of each kind.
using KindCounts = std::vector<int>;

// What the objective is of replicas: most steps per second in all, then the least time per token.
struct ReplicaWorth {
  double steps_per_second = 0;  // 0: the model does not fit
  double stream_ms = 0;         // summed up over replicas

  ReplicaWorth operator+(const ReplicaWorth& other) const {
    return {steps_per_second + other.steps_per_second, stream_ms + other.stream_ms};
  }
  // Sums that differ by their rounding alone are equal.
  bool BetterThan(const ReplicaWorth& other) const;
};

struct Division {
  std::vector<KindCounts> replicas;
  ReplicaWorth worth;
};

// What the planner makes of sets of workers; each set is planned once. What it is made from
// outlives it; the input must have passed CheckPlanInput. Not thread-safe.
class SetPlanner {
 public:
  SetPlanner(const model::Model& model, const model::ModelFootprint& footprint,
             const std::vector<WorkerProfile>& workers, PlanRequest request);
  SetPlanner(const SetPlanner&) = delete;
  SetPlanner& operator=(const SetPlanner&) = delete;

  // One pipeline on these workers alone (ascending), for each replica's share of the sequences when
  // there are `replicas`. Speaks of all workers; those that are not among `members` hold nothing.
  std::optional<Plan> PlanOf(const std::vector<int>& members, int64_t replicas) const;
  ReplicaWorth WorthOf(const KindCounts& counts, int64_t replicas);

  // Steps per second that no division can beat: as if every worker read its part of the model all
  // the time, and layers could be cut anywhere.
  double Bound() const;
  const MachineKinds& kinds() const { return kinds_; }
  const std::vector<WorkerProfile>& workers() const { return workers_; }
  // Sets that are different to the planner; the largest int64 where there are too many to count.
  int64_t SetCount() const;
  // Sets that were planned so far.
  int64_t planned() const { return static_cast<int64_t>(worths_.size()); }
  // What every replica holds beside keys, values and scratch.
  int64_t model_bytes() const { return model_bytes_; }

 private:
  const model::Model& model_;
  const model::ModelFootprint& footprint_;
  const std::vector<WorkerProfile>& workers_;
  const PlanRequest request_;
  const MachineKinds kinds_;
  int64_t model_bytes_ = 0;
  // By each replica's sequences, and the set.
  std::map<std::pair<int64_t, KindCounts>, ReplicaWorth> worths_;
};

// The best division into exactly `replicas` sets; workers may be left over. Looks at every one:
// for few SetCount()s. nullopt when so many do not fit.
std::optional<Division> DivideExactly(SetPlanner& sets, int64_t replicas);

// A good one: begins with sets of nearly equal memory, then moves and exchanges workers while that
// helps, up to a number of plans. It stops early near the bound.
std::optional<Division> DivideNearby(SetPlanner& sets, int64_t replicas);

}  // namespace renga::partition

#endif  // RENGA_PARTITION_REPLICA_SEARCH_H_

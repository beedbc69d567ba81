// The search behind MakePlan: which workers, in which order, with which head blocks.
#ifndef RENGA_PARTITION_PLAN_SEARCH_H_
#define RENGA_PARTITION_PLAN_SEARCH_H_

#include <optional>
#include <vector>

#include "model/shard_spec.h"
#include "partition/layer_split.h"
#include "partition/plan.h"
#include "partition/shard_costs.h"

namespace renga::partition {

// A placement that fits.
struct Candidate {
  std::vector<StagePlan> stages;
  std::vector<HeadPlan> heads;
  double slowest_ms = 0;  // per worker, head block included
  double total_ms = 0;
  // Workers left out because the plan is much better without them, and how slow the slowest worker
  // would be with each.
  struct TooSlow {
    int worker = 0;
    double slowest_ms_with_it = 0;
  };
  std::vector<TooSlow> too_slow;
};

// What each of `worker_count` workers holds; empty specs for the idle.
std::vector<model::ShardSpec> SpecsOf(const Candidate& candidate, size_t worker_count);

// Not thread-safe. What it is made from outlives it; the request's sizes must have been checked.
class PlanSearch {
 public:
  PlanSearch(const ShardCosts& costs, const std::vector<WorkerProfile>& workers,
             const PlanRequest& request);

  // nullopt when nothing fits. Deterministic.
  std::optional<Candidate> Run() const;

  // Workers that can hold at least one layer.
  const std::vector<int>& usable() const { return usable_; }
  // The most workers a plan may use for layers.
  size_t stage_limit() const { return stage_limit_; }

 private:
  enum class HeadMode {
    kFixedBlocks,  // the request's number of blocks (automatic: one), decided before the layers
    kLeftOver,     // layers first, then the rows where memory is left
  };

  std::optional<Candidate> BestOverOrders(HeadMode mode) const;
  std::optional<Candidate> WithoutSlowWorkers(Candidate candidate, HeadMode mode) const;
  std::vector<std::vector<int>> Orders() const;
  std::vector<int> Strongest(bool by_memory) const;
  std::optional<Candidate> Place(const std::vector<int>& order, HeadMode mode) const;
  std::optional<Candidate> PlaceFixedBlocks(const std::vector<int>& order) const;
  std::optional<Candidate> PlaceLeftOver(const std::vector<int>& order) const;
  std::optional<Candidate> Previous() const;
  std::optional<Candidate> BestOfAll() const;
  std::vector<int> HeadHolders(const std::vector<int>& order) const;
  void AddTimes(Candidate& candidate) const;

  const ShardCosts& costs_;
  const std::vector<WorkerProfile>& workers_;
  const PlanRequest& request_;
  std::vector<int> usable_;
  size_t stage_limit_ = 0;
};

}  // namespace renga::partition

#endif  // RENGA_PARTITION_PLAN_SEARCH_H_

// The search behind MakePlan: stages and their workers first, then the blocks of the head.
#ifndef RENGA_PARTITION_PLAN_SEARCH_H_
#define RENGA_PARTITION_PLAN_SEARCH_H_

#include <optional>
#include <vector>

#include "model/shard_spec.h"
#include "partition/cost_model.h"
#include "partition/exact_search.h"
#include "partition/layer_split.h"
#include "partition/machine_kinds.h"
#include "partition/plan.h"
#include "partition/shard_costs.h"
#include "partition/stage_options.h"

namespace renga::partition {

// A placement that fits.
struct Candidate {
  std::vector<StagePlan> stages;
  std::vector<HeadPlan> heads;
  PlanTimes times;
  // What the search of stages found, by the objective's own time, and by kind if one more of it
  // had to be used.
  double found_ms = 0;
  std::vector<double> with_one_more;
  double bound_ms = 0;
  bool exact = false;
  bool kept = false;  // as Plan::kept
  double given_up_ms = 0;
  double prompts_gain = 0;
};

// What each of `worker_count` workers holds; empty specs for the idle.
std::vector<model::ShardSpec> SpecsOf(const Candidate& candidate, size_t worker_count);

// Not thread-safe. What it is made from outlives it; the request's sizes must have been checked.
class PlanSearch {
 public:
  PlanSearch(const ShardCosts& bytes, const std::vector<WorkerProfile>& workers,
             const PlanRequest& request);
  PlanSearch(const PlanSearch&) = delete;
  PlanSearch& operator=(const PlanSearch&) = delete;

  // nullopt when nothing fits. Deterministic.
  std::optional<Candidate> Run();
  // Whether there is any plan; sooner than Run.
  bool Fits();

  const CostModel& costs() const { return costs_; }
  const MachineKinds& kinds() const { return kinds_; }

 private:
  std::optional<Found> Search(int64_t last_head_rows);
  std::optional<Candidate> BestOfAll();
  std::optional<Candidate> HeadOnLastStage();
  std::optional<Candidate> HeadInBlocks(int64_t count);
  std::optional<Candidate> HeadAfterLayers();
  std::optional<Candidate> HeadNearAndFar();
  std::optional<Candidate> AddFarRows(const Found& found, int64_t near, int64_t blocks);
  std::optional<Candidate> PlaceBlocks(const Found& found, int64_t count);
  std::optional<Candidate> Previous() const;

  Candidate ToCandidate(const Found& found, const LayerSplit& split) const;
  void AddHeadOfGroups(const LayerSplit& split, Candidate& candidate) const;
  bool AddHeadByTime(Candidate& candidate) const;
  std::vector<int> HeadHolders(const Candidate& candidate) const;
  Value ValueOf(const Candidate& candidate) const;
  size_t WorkerLimit() const;

  const ShardCosts& bytes_;
  const std::vector<WorkerProfile>& workers_;
  const PlanRequest& request_;
  const MachineKinds kinds_;
  const CostModel costs_;
  StageOptions options_;
  bool any_fit_ = false;
  int64_t without_layers_ = 0;  // workers that the search of stages leaves over
};

}  // namespace renga::partition

#endif  // RENGA_PARTITION_PLAN_SEARCH_H_

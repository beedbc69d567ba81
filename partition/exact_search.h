// The best stages, their workers and their order, by dynamic programming over how many workers of
// each kind are used, who was last, and how many layers are placed.
#ifndef RENGA_PARTITION_EXACT_SEARCH_H_
#define RENGA_PARTITION_EXACT_SEARCH_H_

#include <cstdint>
#include <optional>
#include <vector>

#include "partition/layer_split.h"
#include "partition/plan.h"
#include "partition/stage_options.h"

namespace renga::partition {

struct SearchRules {
  Objective objective = Objective::kManyStreams;
  int64_t max_workers = 1;        // of all stages together
  bool use_every_worker = false;  // as many as fit
  int64_t tensor_parallel = 1;    // as PlanRequest's
  int64_t last_head_rows = 0;     // on the last stage, beside its layers
  double worth_dropping = 1;      // as PlanRequest's
  bool any_fit = false;           // anything that fits will do; with kOneStream
};

struct Found {
  Lineup lineup;
  Value value;
  // By kind: the objective's first time if one more of this kind was used beside them; kNever where
  // that is impossible, or not known.
  std::vector<double> with_one_more;
  double bound_ms = 0;  // no lineup's first time is less; set by who asked
  // No lineup is better; false where groups were limited to workers of like speed.
  bool exact = false;
};

// Whether the tables of an exact search stay small: always for up to about 12 workers, and for many
// more where they are of few kinds.
bool CanSearchExactly(const CostModel& costs);

// Minimises over every lineup: any workers, in any order, in groups of up to kMaxGroup where rules
// allow them. With kManyStreams, using more workers than the fastest lineup is preferred until
// worth_dropping says otherwise. nullopt when nothing fits. Deterministic.
std::optional<Found> SearchExactly(StageOptions& options, const SearchRules& rules);

// Larger groups are not looked at unless they are asked for.
inline constexpr int64_t kMaxGroup = 8;

}  // namespace renga::partition

#endif  // RENGA_PARTITION_EXACT_SEARCH_H_

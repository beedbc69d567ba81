// How much each expert of a mixture has been used, where a use counts for less the longer ago it
// was: by these numbers experts stay in memory or go. The one place where the engine (who keeps
// experts, worker/engine/expert_cache.h) and studies (who say what that gives,
// partition/expert_replay.h) get them.
#ifndef RENGA_MODEL_EXPERT_USES_H_
#define RENGA_MODEL_EXPERT_USES_H_

#include <cstddef>
#include <cstdint>
#include <vector>

namespace renga::model {

// After so many steps a use counts half: some sentences' length. 32 and 64 gave the most hits over
// all that was recorded (docs/regions.md), none of it of a real mixture.
inline constexpr double kExpertHalfLifeSteps = 32;

// Not thread-safe.
class ExpertUses {
 public:
  // Of so many experts, none of them used. `half_life_steps` is above 0.
  explicit ExpertUses(size_t experts, double half_life_steps = kExpertHalfLifeSteps);

  // What was counted until now is a step older. True when all numbers were made smaller, so that
  // they stay within what a double holds: their order stays.
  bool BeginStep();
  // Of the present step: so many rows have chosen the expert. Returns its number.
  double Count(size_t expert, double rows);
  // Larger for those that are used more; only the order means something.
  double of(size_t expert) const { return uses_[expert]; }

 private:
  const double growth_;  // of a use's weight from step to step
  double use_ = 1;       // what a use counts now
  std::vector<double> uses_;
};

}  // namespace renga::model

#endif  // RENGA_MODEL_EXPERT_USES_H_

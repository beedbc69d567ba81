#include "model/expert_uses.h"

#include <cmath>

namespace renga::model {
namespace {

// Where the weight of a use begins anew, long before doubles end.
constexpr double kLargestUse = 1e200;

}  // namespace

ExpertUses::ExpertUses(size_t experts, double half_life_steps)
    : growth_(std::exp2(1 / half_life_steps)), uses_(experts) {}

bool ExpertUses::BeginStep() {
  use_ *= growth_;
  if (use_ <= kLargestUse) return false;
  for (double& uses : uses_) uses /= kLargestUse;
  use_ /= kLargestUse;
  return true;
}

double ExpertUses::Count(size_t expert, double rows) {
  uses_[expert] += use_ * rows;
  return uses_[expert];
}

}  // namespace renga::model

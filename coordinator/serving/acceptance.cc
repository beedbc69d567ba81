#include "coordinator/serving/acceptance.h"

#include <algorithm>

namespace renga::serving {
namespace {

// An outcome's weight halves with every 14 of its class.
constexpr double kDecay = 0.95;
constexpr double kPriorWeight = 2;
// Of guesses by a model that was trained on the same texts, a tenth of the size.
constexpr double kComputedPrior = 0.6;

}  // namespace

void Acceptance::Record(int evidence, bool came_true) {
  hits_[evidence] = kDecay * hits_[evidence] + (came_true ? 1 : 0);
  trials_[evidence] = kDecay * trials_[evidence] + 1;
  if (evidence < kFoundClasses) return;
  computed_hits_ = kDecay * computed_hits_ + (came_true ? 1 : 0);
  computed_trials_ = kDecay * computed_trials_ + 1;
}

double Acceptance::Of(int evidence) const {
  const double share =
      (hits_[evidence] + kPriorWeight * priors_[evidence]) / (trials_[evidence] + kPriorWeight);
  return std::min(share, kMost);
}

double Acceptance::OfComputed() const {
  const double share =
      (computed_hits_ + kPriorWeight * kComputedPrior) / (computed_trials_ + kPriorWeight);
  return std::min(share, kMost);
}

}  // namespace renga::serving

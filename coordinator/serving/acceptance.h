// How often a sequence's guesses come true, per evidence class (drafter.h). Every guess counts,
// also one that was never sent to the stages: whether it was right is known for nothing as soon as
// the token is drawn. So text that can't be guessed is found out without slowing it down. Internal
// to serving/.
#ifndef RENGA_COORDINATOR_SERVING_ACCEPTANCE_H_
#define RENGA_COORDINATOR_SERVING_ACCEPTANCE_H_

#include <array>

#include "coordinator/serving/drafter.h"

namespace renga::serving {

class Acceptance {
 public:
  // Never 1: nothing is certain, and a run of guesses has an end.
  static constexpr double kMost = 0.98;

  explicit Acceptance(const EvidencePriors& priors) : priors_(priors) {}

  void Record(int evidence, bool came_true);
  // The chance that a guess of this class comes true: older outcomes count less, and the prior as
  // much as two outcomes.
  double Of(int evidence) const;
  // That a computed guess comes true, whatever its class will be.
  double OfComputed() const;

 private:
  EvidencePriors priors_;
  std::array<double, kEvidenceClasses> hits_{};
  std::array<double, kEvidenceClasses> trials_{};
  double computed_hits_ = 0;
  double computed_trials_ = 0;
};

}  // namespace renga::serving

#endif  // RENGA_COORDINATOR_SERVING_ACCEPTANCE_H_

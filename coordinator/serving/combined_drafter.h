// Found guesses where they are sure, computed ones elsewhere.
#ifndef RENGA_COORDINATOR_SERVING_COMBINED_DRAFTER_H_
#define RENGA_COORDINATOR_SERVING_COMBINED_DRAFTER_H_

#include <memory>
#include <span>
#include <utility>
#include <vector>

#include "coordinator/serving/drafter.h"

namespace renga::serving {

class CombinedDrafter : public Drafter {
 public:
  CombinedDrafter(std::unique_ptr<Drafter> finder, std::unique_ptr<Drafter> computer);

  std::vector<Guess> Propose(std::span<const TokenId> tokens, std::span<const Guess> pending,
                             const GuessLimits& limits) override;
  const EvidencePriors& priors() const override { return priors_; }
  double guess_us() const override { return computer_->guess_us(); }

 private:
  const std::unique_ptr<Drafter> finder_;
  const std::unique_ptr<Drafter> computer_;
  EvidencePriors priors_;
};

}  // namespace renga::serving

#endif  // RENGA_COORDINATOR_SERVING_COMBINED_DRAFTER_H_

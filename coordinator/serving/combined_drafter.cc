#include "coordinator/serving/combined_drafter.h"

#include <algorithm>

namespace renga::serving {
namespace {

// From here on a found guess is a copy, which no model knows better.
constexpr int kSureClass = 4;

}  // namespace

CombinedDrafter::CombinedDrafter(std::unique_ptr<Drafter> finder, std::unique_ptr<Drafter> computer)
    : finder_(std::move(finder)), computer_(std::move(computer)), priors_(finder_->priors()) {
  std::copy(computer_->priors().begin() + kFoundClasses, computer_->priors().end(),
            priors_.begin() + kFoundClasses);
}

std::vector<Guess> CombinedDrafter::Propose(std::span<const TokenId> tokens,
                                            std::span<const Guess> pending,
                                            const GuessLimits& limits) {
  const bool found_before = pending.empty() || !pending.back().computed();
  std::vector<Guess> found =
      finder_->Propose(tokens, pending, {.found = found_before ? limits.found : 0});
  const bool sure = !found.empty() && found.front().evidence >= kSureClass;
  // Asked in any case: it has to follow the text.
  std::vector<Guess> computed =
      computer_->Propose(tokens, pending, {.computed = sure ? 0 : limits.computed});
  return computed.empty() ? found : computed;
}

}  // namespace renga::serving

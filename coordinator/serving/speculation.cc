#include "coordinator/serving/speculation.h"

#include <algorithm>

namespace renga::serving {

void Speculation::Propose(std::span<const TokenId> tokens, int64_t sent,
                          const GuessLimits& limits) {
  guesses_.resize(std::min(guesses_.size(), static_cast<size_t>(sent)));
  const std::vector<Guess> more = drafter_->Propose(tokens, guesses_, limits);
  guesses_.insert(guesses_.end(), more.begin(), more.end());
}

bool Speculation::Confirm(TokenId drawn) {
  if (guesses_.empty()) return false;
  const bool came_true = guesses_.front().token == drawn;
  acceptance_.Record(guesses_.front().evidence, came_true);
  if (came_true) {
    guesses_.erase(guesses_.begin());
  } else {
    guesses_.clear();
  }
  return came_true;
}

std::vector<double> Speculation::Chances(int64_t count) const {
  std::vector<double> chances;
  for (const Guess& guess : guesses_) {
    if (static_cast<int64_t>(chances.size()) >= count) break;
    chances.push_back(acceptance_.Of(guess.evidence));
  }
  return chances;
}

}  // namespace renga::serving

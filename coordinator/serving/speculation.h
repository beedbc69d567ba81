// A sequence's guesses: those that are on the stages to be verified, then those that might be sent
// next. Internal to serving/; used by the scheduler's thread alone.
#ifndef RENGA_COORDINATOR_SERVING_SPECULATION_H_
#define RENGA_COORDINATOR_SERVING_SPECULATION_H_

#include <cstdint>
#include <memory>
#include <span>
#include <utility>
#include <vector>

#include "coordinator/serving/acceptance.h"
#include "coordinator/serving/drafter.h"

namespace renga::serving {

class Speculation {
 public:
  explicit Speculation(std::unique_ptr<Drafter> drafter)
      : drafter_(std::move(drafter)), acceptance_(drafter_->priors()) {}

  // Keeps the first `sent` guesses and has others made after them, for a sequence that so far is
  // `tokens`.
  void Propose(std::span<const TokenId> tokens, int64_t sent, const GuessLimits& limits);
  // Adds a guess behind those that are there.
  void Add(const Guess& guess) { guesses_.push_back(guess); }
  // `drawn` came where the first guess was for; true if it came true. A miss ends all guesses.
  bool Confirm(TokenId drawn);
  void Clear() { guesses_.clear(); }
  // Drops all guesses behind the first `count`.
  void Keep(size_t count) {
    if (guesses_.size() > count) guesses_.resize(count);
  }

  // For the positions after the sequence's last token.
  std::span<const Guess> guesses() const { return guesses_; }
  // The chance of each of the first `count` guesses, those before it taken for true.
  std::vector<double> Chances(int64_t count) const;
  // The chance of a computed guess before it is made.
  double ComputedChance() const { return acceptance_.OfComputed(); }
  // As Drafter's.
  double guess_us() const { return drafter_->guess_us(); }

 private:
  std::unique_ptr<Drafter> drafter_;
  Acceptance acceptance_;
  std::vector<Guess> guesses_;
};

}  // namespace renga::serving

#endif  // RENGA_COORDINATOR_SERVING_SPECULATION_H_

// Guessing what a sequence says next, so that several tokens can be verified in one step.
//
// The text is what the model and the sampler make it, whoever guessed. So a drafter may be as wrong
// as it likes. What it owes is an honest `evidence`, because how often guesses of a class come true
// is measured, and decides whether the next ones are worth a row. Some guesses are found, and cost
// nothing but the row that verifies them; others are computed by a smaller model, which takes time
// of its own.
#ifndef RENGA_COORDINATOR_SERVING_DRAFTER_H_
#define RENGA_COORDINATOR_SERVING_DRAFTER_H_

#include <array>
#include <cstdint>
#include <span>
#include <vector>

#include "coordinator/serving/sampler.h"

namespace renga::serving {

// How sure a drafter is: found guesses from 0 (least) to kFoundClasses - 1, computed ones from
// there to kEvidenceClasses - 1.
inline constexpr int kFoundClasses = 8;
inline constexpr int kEvidenceClasses = 2 * kFoundClasses;

struct Guess {
  TokenId token = 0;
  int evidence = 0;

  bool computed() const { return evidence >= kFoundClasses; }
};

// How many guesses are wanted.
struct GuessLimits {
  int64_t found = 0;
  int64_t computed = 0;  // 0: none are worth the time that they take
};

// Per evidence class: the share of guesses that comes true, as believed before any is measured.
using EvidencePriors = std::array<double, kEvidenceClasses>;

// One sequence's. Not thread-safe. Asked before every step of the sequence.
class Drafter {
 public:
  virtual ~Drafter() = default;

  // Guesses, all found or all computed and no more than wanted of them, at what follows `tokens`
  // and then `pending`. `tokens` is the sequence so far, prompt and answer: always what the last
  // call saw with any number of tokens (also none) added. `pending` are earlier guesses that nobody
  // has verified yet; a drafter that would no longer make them has none to add. Each guess takes
  // those before it for true. Asked for none, a drafter may prepare itself for the next call.
  virtual std::vector<Guess> Propose(std::span<const TokenId> tokens,
                                     std::span<const Guess> pending, const GuessLimits& limits) = 0;

  virtual const EvidencePriors& priors() const = 0;

  // What a computed guess takes, in microseconds, as measured; 0: unknown, or it computes none.
  virtual double guess_us() const { return 0; }
};

}  // namespace renga::serving

#endif  // RENGA_COORDINATOR_SERVING_DRAFTER_H_

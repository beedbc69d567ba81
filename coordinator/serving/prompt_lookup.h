// The drafter that needs no model: when the sequence's last few tokens occurred in it before, what
// followed them then is the guess. It pays where text is quoted, edited or repeated, and its
// evidence is how many tokens agree.
#ifndef RENGA_COORDINATOR_SERVING_PROMPT_LOOKUP_H_
#define RENGA_COORDINATOR_SERVING_PROMPT_LOOKUP_H_

#include <array>
#include <cstdint>
#include <span>
#include <vector>

#include "coordinator/serving/drafter.h"

namespace renga::serving {

// Remembers, for runs of kLengths tokens, where each was seen last. A token costs one entry per
// length, whatever the context; memory is at most 32 bytes per token, and kMaxSlots entries of 4.
// Where too many runs fall together the oldest is forgotten: a match may be missed, none is wrong.
class PromptLookup : public Drafter {
 public:
  // Longest first: of several places the one with the most agreement is worth the most.
  static constexpr std::array<int64_t, 4> kLengths = {12, 6, 3, 2};
  static constexpr int64_t kMaxSlots = int64_t{1} << 18;
  // Agreement is counted no further than this.
  static constexpr int64_t kLongestMatch = 64;

  std::vector<Guess> Propose(std::span<const TokenId> tokens, std::span<const Guess> pending,
                             const GuessLimits& limits) override;
  const EvidencePriors& priors() const override;

  // The evidence class of a guess after `match` tokens that agree, at least the shortest length.
  static int EvidenceOf(int64_t match);

 private:
  void Observe(std::span<const TokenId> tokens);
  void Grow(std::span<const TokenId> tokens);
  // Enters the runs that end with the token at `position`. Where `find`, also looks for an earlier
  // occurrence of them.
  void Enter(std::span<const TokenId> tokens, int64_t position, bool find);
  // Where the run of `length` tokens that ends with `position` was entered, or else may be.
  int32_t& SlotOf(std::span<const TokenId> tokens, int64_t position, int64_t length);
  void Follow(std::span<const TokenId> tokens, int64_t position);

  std::vector<int32_t> slots_;  // positions of the last tokens of runs; -1: none
  int64_t observed_ = 0;        // tokens entered
  int64_t source_ = -1;         // the position whose token is the next guess; -1: no match
  int64_t match_ = 0;           // tokens before `source_` that agree with the sequence's end
};

}  // namespace renga::serving

#endif  // RENGA_COORDINATOR_SERVING_PROMPT_LOOKUP_H_

// A grammar over the tokens of a model: which of them may come next, and where each one leads.
#ifndef RENGA_COORDINATOR_SERVING_GRAMMAR_GRAMMAR_WALK_H_
#define RENGA_COORDINATOR_SERVING_GRAMMAR_GRAMMAR_WALK_H_

#include <cstdint>
#include <memory>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "coordinator/serving/grammar/automaton.h"
#include "coordinator/serving/grammar/network.h"
#include "coordinator/serving/grammar/token_trie.h"
#include "model/token_mask.h"

namespace renga::grammar {

// What an answer is to be. Immutable; safe from any thread.
struct TokenGrammar {
  std::shared_ptr<const Network> network;
  std::shared_ptr<const TokenTrie> tokens;
  // The answer begins a text: one space at the beginning of its first token is not shown
  // (model::Tokenizer::strips_leading_space), and the grammar does not see it either.
  bool drops_first_space = false;
  // End tokens are tokens like others, and no text, so that none is ever allowed.
  bool ignore_end_tokens = false;
};

// One answer's walk. Not thread-safe.
class GrammarWalk {
 public:
  // Where some tokens have led.
  struct Place {
    StateId state = Automaton::kDead;
    bool first = false;  // there was no token yet
  };

  // The model's vocabulary may be another size than the tokenizer's: tokens behind its end are
  // never allowed. kInvalidArgument for a grammar that is too ambiguous from the start, or of which
  // the vocabulary cannot write the first character.
  static absl::StatusOr<std::unique_ptr<GrammarWalk>> Begin(
      std::shared_ptr<const TokenGrammar> grammar, int64_t vocab_size);

  // Of the tokens that were drawn.
  const Place& place() const { return place_; }
  // Goes on with a token that was drawn, one of Allowed(place()) and no end token. kInvalidArgument
  // when nothing can follow although the text is not at its end, as the vocabulary has no token for
  // it, or when the grammar turns out too ambiguous.
  absl::Status Advance(model::TokenId token);
  // The text is at its end, and nothing but an end token could follow.
  bool Complete() const { return IsComplete(place_); }

  // Where a token leads; a dead end for one that is not allowed.
  Place Next(Place place, model::TokenId token);
  // Whether an answer goes on at this place: some text is allowed there.
  bool GoesOn(Place place);
  // Tokens that may follow: those whose text the grammar goes on with, and end tokens where it may
  // end. Null where there is none. Kept by place, so that asking again costs nothing, until there
  // are many.
  std::shared_ptr<const model::TokenMask> Allowed(Place place);

  // Spent on sets of tokens so far, and how many were made.
  absl::Duration time() const { return time_; }
  int64_t masks_made() const { return masks_made_; }

 private:
  // Of a bit for each token, all together 16 MiB for the largest vocabularies.
  static constexpr size_t kManyMasks = 512;

  GrammarWalk(std::shared_ptr<const TokenGrammar> grammar, int64_t vocab_size)
      : grammar_(std::move(grammar)), vocab_size_(vocab_size), automaton_(grammar_->network) {}

  bool IsComplete(Place place) const {
    return automaton_.Accepts(place.state) && !automaton_.GoesOn(place.state);
  }
  // What Advance promises of a place that tokens have led to.
  absl::Status CheckPlace(Place place);
  std::shared_ptr<const model::TokenMask> MakeMask(Place place);

  const std::shared_ptr<const TokenGrammar> grammar_;
  const int64_t vocab_size_;
  Automaton automaton_;
  Place place_;
  // By state; of the first token apart.
  absl::flat_hash_map<StateId, std::shared_ptr<const model::TokenMask>> masks_;
  std::shared_ptr<const model::TokenMask> first_mask_;
  std::vector<StateId> path_;  // while a mask is made: states by depth
  absl::Duration time_;
  int64_t masks_made_ = 0;
};

}  // namespace renga::grammar

#endif  // RENGA_COORDINATOR_SERVING_GRAMMAR_GRAMMAR_WALK_H_

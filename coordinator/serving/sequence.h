// A request while it is being served. Internal to serving/; used by the scheduler's thread alone.
#ifndef RENGA_COORDINATOR_SERVING_SEQUENCE_H_
#define RENGA_COORDINATOR_SERVING_SEQUENCE_H_

#include <cstdint>
#include <memory>
#include <variant>
#include <vector>

#include "absl/time/time.h"
#include "coordinator/serving/grammar/grammar_walk.h"
#include "coordinator/serving/request.h"
#include "coordinator/serving/speculation.h"
#include "model/step.h"

namespace renga::serving {

struct GenerateJob {
  GenerateRequest request;
  GenerateSink sink;
};

struct ScoreJob {
  ScoreRequest request;
  ScoreSink sink;
};

// The journal of a sequence is its tokens, the seed in its request and the position, which is the
// number of tokens: computing `tokens` from position 0 in a new run gives the state that the
// stages had, and the sampler draws the same tokens again. Recovery and preemption are just that.
struct Sequence {
  uint64_t request_id = 0;
  std::variant<GenerateJob, ScoreJob> job;
  std::vector<TokenId> tokens;  // the prompt, then what was drawn
  int64_t prompt_tokens = 0;

  // A stay on the stages. Each one has an id of its own, so that an answer that belongs to an
  // earlier stay can be told from one that counts.
  model::SequenceId run = 0;  // 0: waiting
  int64_t submitted = 0;      // positions of this run that were sent: tokens, then guesses
  uint64_t forks = 0;         // times that guesses were taken back: rows sent before are void
  uint64_t last_served = 0;   // the planned step that last had a slot of this sequence
  int64_t next_row = 0;       // scoring: the first position whose logits were not delivered yet

  std::unique_ptr<Speculation> speculation;       // null: none
  std::unique_ptr<grammar::GrammarWalk> grammar;  // where `tokens` have led; null: none
  SpeculationCounts counts;
  int64_t screened_tokens = 0;  // GenerateResult's
  int64_t approximated_tokens = 0;
  int64_t left_out = 0;
  bool all_rows = false;  // hot rows of the vocabulary do not do for its prompt

  absl::Time arrived;
  absl::Time started = absl::InfinitePast();      // the first step was sent
  absl::Time first_token = absl::InfinitePast();  // the answer's first token was drawn

  bool is_score() const { return std::holds_alternative<ScoreJob>(job); }
  // Tokens to compute; below 0 when guesses are under way.
  int64_t remaining() const { return static_cast<int64_t>(tokens.size()) - submitted; }
  int64_t generated() const { return static_cast<int64_t>(tokens.size()) - prompt_tokens; }
  // The next step is one token of the answer, not a part of the prompt (or of a replay).
  bool decoding() const {
    return generated() > 0 && submitted + 1 >= static_cast<int64_t>(tokens.size());
  }

  // How many guesses may be under way after the last token: the last token of an answer is never
  // computed.
  int64_t most_guesses() const {
    if (is_score()) return 0;
    return std::get<GenerateJob>(job).request.max_tokens - generated() - 1;
  }

  int64_t chunk_tokens() const {
    return is_score() ? std::get<ScoreJob>(job).request.chunk_tokens
                      : std::get<GenerateJob>(job).request.chunk_tokens;
  }
  absl::Time deadline() const {
    return is_score() ? std::get<ScoreJob>(job).request.deadline
                      : std::get<GenerateJob>(job).request.deadline;
  }
  // The first position whose logits are wanted. A replayed answer wants only its newest.
  int64_t first_output() const {
    return is_score() ? next_row : static_cast<int64_t>(tokens.size()) - 1;
  }
  int64_t head_top_k(int64_t vocab_size) const {
    if (is_score()) return 0;
    const GenerateRequest& request = std::get<GenerateJob>(job).request;
    return HeadTopK(request.sampling, request.alternatives, vocab_size);
  }
  float head_within() const {
    if (is_score()) return 0;
    const GenerateRequest& request = std::get<GenerateJob>(job).request;
    return HeadWithin(request.sampling, request.alternatives);
  }
  double head_draw() const {
    if (is_score()) return 0;
    const GenerateRequest& request = std::get<GenerateJob>(job).request;
    return HeadDraw(request.sampling, request.alternatives);
  }
  uint64_t seed() const {
    return is_score() ? 0 : std::get<GenerateJob>(job).request.sampling.seed;
  }
  // Whether probabilities are to be told, which all logits have a part in.
  bool sum_wanted() const { return is_score() || std::get<GenerateJob>(job).request.logprobs; }
};

}  // namespace renga::serving

#endif  // RENGA_COORDINATOR_SERVING_SEQUENCE_H_

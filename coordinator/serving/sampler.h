// From the logits of one position to one token.
//
// Sampling is a pure function of (logits, history, parameters, position): the random numbers, one
// for each token of the vocabulary, are computed from the seed, the position and the token
// (model/gumbel.h), so a replayed sequence draws the same tokens, whatever else was running beside
// it. Who wins depends on nobody who can't: a draw from fewer candidates is the same, if the winner
// is among them.
//
// Where a grammar says which tokens may come next the others are out before anything else, as if
// the vocabulary did not have them.
//
// The order of work, each step on what the one before left:
//   1. logit_bias is added
//   2. repetition penalty (prompt and answer, last `repetition_window` tokens): positive logits are
//      divided by it, others multiplied
//   3. presence and frequency penalties (answer only) are subtracted
//   4. temperature divides; 0 takes the best token here and ends
//   5. top_k, 6. top_p (of what top_k left), 7. min_p (relative to the best token)
//   8. one token is drawn: the one with the largest logit + temperature * noise
#ifndef RENGA_COORDINATOR_SERVING_SAMPLER_H_
#define RENGA_COORDINATOR_SERVING_SAMPLER_H_

#include <cstdint>
#include <span>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "model/step.h"

namespace renga::serving {

using TokenId = int32_t;

// A head returns at most this many best rows; a larger top_k is cut out of all logits instead.
inline constexpr int64_t kMaxHeadTopK = 256;
// Most alternatives that may be reported with a token.
inline constexpr int64_t kMaxAlternatives = 20;

struct SamplingParams {
  double temperature = 0;  // 0: always the best token, ties to the lowest id
  int64_t top_k = 0;       // 0: no limit
  double top_p = 1;        // the smallest set of best tokens with this much probability
  double min_p = 0;        // tokens at least this probable, relative to the best one
  double repetition_penalty = 1;
  int64_t repetition_window = 64;  // 0: the whole sequence
  double presence_penalty = 0;
  double frequency_penalty = 0;
  absl::flat_hash_map<TokenId, double> logit_bias = {};
  uint64_t seed = 0;
};

// kInvalidArgument with one sentence naming the parameter and its range.
absl::Status CheckSamplingParams(const SamplingParams& params, int64_t vocab_size);

// StepSlot::top_k for a position sampled with `params`, whose `alternatives` best tokens are to be
// reported too: 0 when all logits are needed.
int64_t HeadTopK(const SamplingParams& params, int64_t alternatives, int64_t vocab_size);

// StepSlot::within for the same position: how far from the best logit a token may be that min_p
// keeps, when min_p alone says which are kept, or as HeadDraw says; 0 when other rows matter too.
float HeadWithin(const SamplingParams& params, int64_t alternatives);

// StepSlot::draw_temperature for the same position: above 0 when nothing limits the draw, so that
// only tokens can win whose logits with noise are HeadWithin from the best or closer.
double HeadDraw(const SamplingParams& params, int64_t alternatives);

struct TokenLogprob {
  TokenId id = 0;
  // Under the model itself: temperature 1, no penalties or filters. NaN when the head was not asked
  // for sums.
  float logprob = 0;
};

struct SampledToken {
  TokenId id = 0;
  float logprob = 0;                       // as in TokenLogprob
  std::vector<TokenLogprob> alternatives;  // best first
};

// What the penalties look at.
struct History {
  std::span<const TokenId> tokens;  // prompt, then answer
  int64_t prompt_tokens = 0;
};

// Draws the token at position history.tokens.size(). `row` is what the head answered to
// HeadTopK(params, alternatives, vocab_size), HeadWithin and HeadDraw among the `allowed` tokens,
// of which there is at least one (null: all); alternatives are allowed ones, too. kInternal when
// the row can't be that answer or holds no finite logit.
absl::StatusOr<SampledToken> SampleToken(const model::HeadRow& row, const History& history,
                                         const SamplingParams& params, int64_t alternatives,
                                         int64_t vocab_size,
                                         const model::TokenMask* allowed = nullptr);

}  // namespace renga::serving

#endif  // RENGA_COORDINATOR_SERVING_SAMPLER_H_

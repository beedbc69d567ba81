// What is asked of the scheduler, and how the answer comes back.
//
// Every callback of a request runs on the scheduler's thread, one at a time, and `on_done` is the
// last of them and runs exactly once. Callbacks must be quick: while one runs, no sequence gets a
// token. They may call Submit and Cancel, but must not destroy the scheduler.
#ifndef RENGA_COORDINATOR_SERVING_REQUEST_H_
#define RENGA_COORDINATOR_SERVING_REQUEST_H_

#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "coordinator/serving/grammar/grammar_walk.h"
#include "coordinator/serving/sampler.h"

namespace renga::serving {

struct Usage {
  int64_t prompt_tokens = 0;
  int64_t completion_tokens = 0;  // every token that was drawn, an end token included
};

// Where a request's time went.
struct RequestTimings {
  absl::Duration queued;   // until its first token was sent to the stages
  absl::Duration prefill;  // from there until the first token of the answer
  absl::Duration decode;   // from there until the last one
};

// Tokens that were guessed and verified several to a step. They change no token of the answer.
struct SpeculationCounts {
  int64_t drafted = 0;   // guesses sent to the stages
  int64_t accepted = 0;  // of them, those that were what was drawn
  int64_t refuted = 0;   // times that one was not, and it and those behind it were taken back
};

enum class FinishReason {
  kStop,    // an end token, the grammar's end, or the sink said so
  kLength,  // max_tokens, or the context is full
};
absl::string_view FinishReasonName(FinishReason reason);  // "stop", "length"

struct GenerateRequest {
  std::vector<TokenId> prompt;  // at least one token
  int64_t max_tokens = 0;       // 0: as many as the context has room for
  SamplingParams sampling = {};
  bool ignore_eos = false;   // end tokens are tokens like others
  int64_t alternatives = 0;  // best tokens reported with each token, at most kMaxAlternatives
  // Whether SampledToken's log-probabilities are wanted; without them a head may do with less.
  bool logprobs = true;
  // Which tokens may come next, and when the answer is complete; null: any. An answer that is
  // complete ends there, with kStop, without an end token.
  std::shared_ptr<const grammar::TokenGrammar> grammar = nullptr;
  int64_t chunk_tokens = 0;  // largest piece of the prompt in one step; 0: the scheduler's choice
  absl::Time deadline = absl::InfiniteFuture();
};

struct TokenEvent {
  SampledToken sampled;
  int64_t position = 0;  // in the sequence, the prompt counted
};

struct GenerateResult {
  FinishReason reason = FinishReason::kStop;
  Usage usage;
  RequestTimings timings;
  SpeculationCounts speculation = {};
  // Tokens for which some head block did not read all of its rows, as it could prove the answer.
  int64_t screened_tokens = 0;
  // Tokens whose logits came from an approximation; 0 where none is on.
  int64_t approximated_tokens = 0;
  // Feed-forwards that came after their deadline, each once for every token that went without it,
  // those of the prompt among them.
  int64_t left_out = 0;
  // The prompt did not fit the hot rows of the vocabulary: all rows were read (hot_rows_guard.h).
  bool guarded = false;
  // What the grammar took: for how many positions the tokens that it allows were looked for, and
  // how long that was.
  int64_t grammar_masks = 0;
  absl::Duration grammar_time = absl::ZeroDuration();
};

enum class SinkAction { kContinue, kStop };

struct GenerateSink {
  // Not called for an end token that ends the answer.
  std::function<SinkAction(const TokenEvent&)> on_token;
  // kInvalidArgument: the request can't be served as it is; kResourceExhausted: too many requests;
  // kUnavailable: no workers, or one was lost (named); kCancelled; kDeadlineExceeded.
  std::function<void(absl::StatusOr<GenerateResult>)> on_done;
};

// Logits of a given text. Rows come in order, each one once, and are not kept: memory is bounded
// by the rows of the steps in flight.
struct ScoreRequest {
  std::vector<TokenId> tokens;
  int64_t first_row = 0;     // rows of earlier positions are not computed
  int64_t chunk_tokens = 0;  // as in GenerateRequest
  absl::Time deadline = absl::InfiniteFuture();
};

struct ScoreSink {
  // The logits after tokens[0 .. position], vocab_size of them. An error ends the request with it.
  std::function<absl::Status(int64_t position, std::span<const float> logits)> on_row;
  std::function<void(absl::StatusOr<RequestTimings>)> on_done;
};

}  // namespace renga::serving

#endif  // RENGA_COORDINATOR_SERVING_REQUEST_H_

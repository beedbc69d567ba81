#include "coordinator/serving/request_checks.h"

#include <algorithm>
#include <span>
#include <utility>
#include <variant>

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "coordinator/serving/hot_rows_guard.h"

namespace renga::serving {
namespace {

absl::Status CheckLengths(int64_t prompt_tokens, int64_t max_tokens, int64_t context) {
  if (prompt_tokens > context) {
    return absl::InvalidArgumentError(absl::StrCat("the prompt has ", prompt_tokens,
                                                   " tokens, more than the context of ", context));
  }
  if (max_tokens > context - prompt_tokens) {
    return absl::InvalidArgumentError(absl::StrCat("the prompt's ", prompt_tokens, " tokens and ",
                                                   max_tokens,
                                                   " of the answer are more than the "
                                                   "context of ",
                                                   context, " tokens"));
  }
  return absl::OkStatus();
}

}  // namespace

absl::Status CheckRequest(Sequence& sequence, int64_t vocab_size, int64_t context) {
  if (sequence.tokens.empty()) return absl::InvalidArgumentError("the prompt has no tokens");
  for (TokenId token : sequence.tokens) {
    if (token < 0 || token >= vocab_size) {
      return absl::InvalidArgumentError(absl::StrCat(
          "the prompt holds token ", token, ", but the vocabulary ends at ", vocab_size - 1));
    }
  }
  if (sequence.chunk_tokens() < 0) return absl::InvalidArgumentError("a chunk size below 0");
  if (sequence.is_score()) {
    if (sequence.next_row < 0 || sequence.next_row >= sequence.prompt_tokens) {
      return absl::InvalidArgumentError(absl::StrCat(
          "first row ", sequence.next_row, " of a text of ", sequence.prompt_tokens, " tokens"));
    }
    return CheckLengths(sequence.prompt_tokens, 0, context);
  }
  GenerateRequest& request = std::get<GenerateJob>(sequence.job).request;
  RENGA_RETURN_IF_ERROR(CheckSamplingParams(request.sampling, vocab_size));
  if (request.alternatives < 0 || request.alternatives > kMaxAlternatives) {
    return absl::InvalidArgumentError(absl::StrCat(
        "at most ", kMaxAlternatives, " alternatives per token, not ", request.alternatives));
  }
  if (request.max_tokens < 0) return absl::InvalidArgumentError("max_tokens below 0");
  RENGA_RETURN_IF_ERROR(
      CheckLengths(sequence.prompt_tokens, std::max<int64_t>(1, request.max_tokens), context));
  if (request.max_tokens == 0) request.max_tokens = context - sequence.prompt_tokens;
  return absl::OkStatus();
}

absl::Status BeginGrammar(Sequence& sequence, int64_t vocab_size) {
  if (sequence.is_score() || sequence.grammar != nullptr) return absl::OkStatus();
  const auto& grammar = std::get<GenerateJob>(sequence.job).request.grammar;
  if (grammar == nullptr) return absl::OkStatus();
  RENGA_ASSIGN_OR_RETURN(sequence.grammar, grammar::GrammarWalk::Begin(grammar, vocab_size));
  return absl::OkStatus();
}

void GuardHotRows(Sequence& sequence, const model::Approximation& approximation) {
  if (approximation.hot_rows == nullptr) return;
  // Of a text that is scored, what stands before the first row.
  const int64_t known = sequence.is_score() ? sequence.next_row : sequence.prompt_tokens;
  sequence.all_rows = NeedsAllRows(std::span(sequence.tokens).first(static_cast<size_t>(known)),
                                   *approximation.hot_rows);
}

absl::string_view FinishReasonName(FinishReason reason) {
  switch (reason) {
    case FinishReason::kStop:
      return "stop";
    case FinishReason::kLength:
      return "length";
  }
  return "";
}

void TellEnd(Sequence& sequence, absl::StatusOr<FinishReason> reason, absl::Time now) {
  RequestTimings timings;
  const bool started = sequence.started != absl::InfinitePast();
  const bool answered = sequence.first_token != absl::InfinitePast();
  timings.queued = (started ? sequence.started : now) - sequence.arrived;
  if (started) timings.prefill = (answered ? sequence.first_token : now) - sequence.started;
  if (answered) timings.decode = now - sequence.first_token;

  if (auto* score = std::get_if<ScoreJob>(&sequence.job)) {
    if (!score->sink.on_done) return;
    if (!reason.ok()) return score->sink.on_done(reason.status());
    return score->sink.on_done(timings);
  }
  GenerateSink& sink = std::get<GenerateJob>(sequence.job).sink;
  if (!sink.on_done) return;
  if (!reason.ok()) return sink.on_done(reason.status());
  const grammar::GrammarWalk* walk = sequence.grammar.get();
  sink.on_done(GenerateResult{*reason,
                              {sequence.prompt_tokens, sequence.generated()},
                              timings,
                              sequence.counts,
                              sequence.screened_tokens,
                              sequence.approximated_tokens,
                              sequence.left_out,
                              sequence.all_rows,
                              walk != nullptr ? walk->masks_made() : 0,
                              walk != nullptr ? walk->time() : absl::ZeroDuration()});
}

}  // namespace renga::serving

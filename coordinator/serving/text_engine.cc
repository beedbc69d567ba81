#include "coordinator/serving/text_engine.h"

#include <algorithm>
#include <memory>
#include <utility>

#include "absl/strings/match.h"
#include "absl/synchronization/notification.h"
#include "base/status_macros.h"
#include "coordinator/serving/text_stream.h"

namespace renga::serving {

absl::StatusOr<std::vector<TokenId>> TextEngine::EncodePrompt(absl::string_view text) const {
  return tokenizer_->Encode(text, {.add_bos = true, .parse_special = true});
}

absl::StatusOr<std::vector<TokenId>> TextEngine::EncodeChat(
    const std::vector<model::ChatMessage>& messages) const {
  if (chat_template_ == nullptr) {
    return absl::InvalidArgumentError("this model has no chat template; use a plain completion");
  }
  RENGA_ASSIGN_OR_RETURN(const std::string text, chat_template_->Render(messages));
  const bool has_bos = tokenizer_->bos().has_value() &&
                       absl::StartsWith(text, tokenizer_->Piece(*tokenizer_->bos()));
  return tokenizer_->Encode(text, {.add_bos = !has_bos, .parse_special = true});
}

RequestHandle TextEngine::Start(std::vector<TokenId> prompt, const TextOptions& options,
                                TextSink sink) {
  struct State {
    TextStream stream;
    TextSink sink;
  };
  // With nothing before it but BOS, the answer is the beginning of a text.
  const bool at_text_start = std::all_of(prompt.begin(), prompt.end(),
                                         [this](TokenId id) { return tokenizer_->IsControl(id); });
  auto state = std::make_shared<State>(
      State{TextStream(tokenizer_, at_text_start, options.stop), std::move(sink)});
  GenerateRequest request;
  request.prompt = std::move(prompt);
  request.max_tokens = options.max_tokens;
  request.sampling = options.sampling;
  request.ignore_eos = options.ignore_eos;
  request.alternatives = options.alternatives;
  request.logprobs = options.logprobs || options.alternatives > 0;
  request.deadline = options.deadline;
  if (options.grammar != nullptr) {
    request.grammar = std::make_shared<const grammar::TokenGrammar>(grammar::TokenGrammar{
        .network = options.grammar,
        .tokens = Trie(),
        .drops_first_space = at_text_start && tokenizer_->strips_leading_space(),
        .ignore_end_tokens = options.ignore_eos});
  }
  return scheduler_->Generate(std::move(request),
                              {.on_token =
                                   [state](const TokenEvent& event) {
                                     const std::string text = state->stream.Add(event.sampled.id);
                                     if (state->sink.on_text) state->sink.on_text({text, &event});
                                     return state->stream.stopped() ? SinkAction::kStop
                                                                    : SinkAction::kContinue;
                                   },
                               .on_done =
                                   [state](absl::StatusOr<GenerateResult> result) {
                                     const std::string rest = state->stream.Finish();
                                     if (!rest.empty() && state->sink.on_text)
                                       state->sink.on_text({rest, nullptr});
                                     if (state->sink.on_done)
                                       state->sink.on_done(std::move(result));
                                   }});
}

std::shared_ptr<const grammar::TokenTrie> TextEngine::Trie() {
  absl::call_once(trie_once_,
                  [this] { trie_ = std::make_shared<const grammar::TokenTrie>(*tokenizer_); });
  return trie_;
}

absl::StatusOr<TextResult> TextEngine::Generate(
    std::vector<TokenId> prompt, const TextOptions& options,
    const std::function<void(absl::string_view)>& on_text) {
  TextResult text;
  absl::StatusOr<GenerateResult> result = absl::UnknownError("");
  absl::Notification done;
  Start(std::move(prompt), options,
        {.on_text =
             [&](const TextEvent& event) {
               text.text += event.text;
               if (on_text && !event.text.empty()) on_text(event.text);
             },
         .on_done =
             [&](absl::StatusOr<GenerateResult> end) {
               result = std::move(end);
               done.Notify();
             }});
  done.WaitForNotification();
  RENGA_RETURN_IF_ERROR(result.status());
  text.result = *std::move(result);
  return text;
}

}  // namespace renga::serving

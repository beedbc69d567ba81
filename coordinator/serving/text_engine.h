// Text in, text out: tokenizer, chat template and scheduler put together. The command line and the
// HTTP server both go through here, so that the same question gets the same answer.
#ifndef RENGA_COORDINATOR_SERVING_TEXT_ENGINE_H_
#define RENGA_COORDINATOR_SERVING_TEXT_ENGINE_H_

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "absl/base/call_once.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "coordinator/serving/grammar/network.h"
#include "coordinator/serving/grammar/token_trie.h"
#include "coordinator/serving/request.h"
#include "coordinator/serving/scheduler.h"
#include "model/chat_template.h"
#include "model/tokenizer.h"

namespace renga::serving {

struct TextOptions {
  int64_t max_tokens = 0;  // 0: as many as the context has room for
  SamplingParams sampling = {};
  std::vector<std::string> stop = {};  // the answer ends before the first of these
  bool ignore_eos = false;
  int64_t alternatives = 0;
  bool logprobs = false;                                      // as GenerateRequest's
  std::shared_ptr<const grammar::Network> grammar = nullptr;  // of the answer's text; null: any
  absl::Time deadline = absl::InfiniteFuture();
};

struct TextEvent {
  std::string text;                   // that became certain; may be empty
  const TokenEvent* token = nullptr;  // nullptr: the rest of the text, after the last token
};

// As GenerateSink: on the scheduler's thread, must be quick, on_done last and once.
struct TextSink {
  std::function<void(const TextEvent&)> on_text;
  std::function<void(absl::StatusOr<GenerateResult>)> on_done;
};

struct TextResult {
  std::string text;
  GenerateResult result;
};

// Thread-safe. What it is made of outlives it; the tokenizer outlives its requests, too.
class TextEngine {
 public:
  // `chat_template` may be nullptr: then chats are refused.
  TextEngine(const model::Tokenizer* tokenizer, const model::ChatTemplate* chat_template,
             Scheduler* scheduler)
      : tokenizer_(tokenizer), chat_template_(chat_template), scheduler_(scheduler) {}

  // A text to continue, with BOS where the vocabulary wants one. Control tokens may be written by
  // name.
  absl::StatusOr<std::vector<TokenId>> EncodePrompt(absl::string_view text) const;
  // A conversation whose next words are the assistant's.
  absl::StatusOr<std::vector<TokenId>> EncodeChat(
      const std::vector<model::ChatMessage>& messages) const;

  RequestHandle Start(std::vector<TokenId> prompt, const TextOptions& options, TextSink sink);

  // Start and wait. `on_text` (may be null) sees each piece of text as it comes, from the
  // scheduler's thread. Not from within a callback.
  absl::StatusOr<TextResult> Generate(std::vector<TokenId> prompt, const TextOptions& options,
                                      const std::function<void(absl::string_view)>& on_text);

  const model::Tokenizer& tokenizer() const { return *tokenizer_; }
  Scheduler& scheduler() const { return *scheduler_; }

 private:
  // Made for the first request that needs it.
  std::shared_ptr<const grammar::TokenTrie> Trie();

  const model::Tokenizer* const tokenizer_;
  const model::ChatTemplate* const chat_template_;
  Scheduler* const scheduler_;
  absl::once_flag trie_once_;
  std::shared_ptr<const grammar::TokenTrie> trie_;
};

}  // namespace renga::serving

#endif  // RENGA_COORDINATOR_SERVING_TEXT_ENGINE_H_

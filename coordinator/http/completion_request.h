// The bodies of /v1/completions and /v1/chat/completions, checked.
#ifndef RENGA_COORDINATOR_HTTP_COMPLETION_REQUEST_H_
#define RENGA_COORDINATOR_HTTP_COMPLETION_REQUEST_H_

#include <cstdint>
#include <string>
#include <variant>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "coordinator/serving/text_engine.h"
#include "model/chat_template.h"
#include "nlohmann/json_fwd.hpp"

namespace renga::http {

enum class Endpoint { kCompletions, kChat };

struct CompletionRequest {
  std::string model;  // empty: whichever is served
  // A text, tokens, or a conversation (kChat only).
  std::variant<std::string, std::vector<serving::TokenId>, std::vector<model::ChatMessage>> prompt;
  serving::TextOptions options;
  bool stream = false;
  bool include_usage = false;  // streaming: a last chunk with the usage
  bool logprobs = false;       // of each token, and options.alternatives others
};

// The JSON object in `body`. kInvalidArgument when it is no JSON, no object, nested deeper than 32
// levels, or of more than a million values. Never throws.
absl::StatusOr<nlohmann::json> ParseJsonObject(absl::string_view body);

// kInvalidArgument names the field and what it should be. Fields renga does not know are ignored
// unless they would change what the answer is (n, tools and the like). `text` is what `body` was
// parsed from. A request without a seed gets `random_seed`.
absl::StatusOr<CompletionRequest> ParseCompletionRequest(const nlohmann::json& body,
                                                         absl::string_view text, Endpoint endpoint,
                                                         uint64_t random_seed);

}  // namespace renga::http

#endif  // RENGA_COORDINATOR_HTTP_COMPLETION_REQUEST_H_

// Chat messages to prompt text, by the template in the model's metadata (tokenizer.chat_template,
// a Jinja template or the name of a default) or a default that fits the vocabulary.
#ifndef RENGA_MODEL_CHAT_TEMPLATE_H_
#define RENGA_MODEL_CHAT_TEMPLATE_H_

#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "model/gguf_file.h"

namespace renga::model {

struct ChatMessage {
  std::string role;  // "system", "user", "assistant"
  std::string content;
};

// Immutable; safe from any thread.
class ChatTemplate {
 public:
  // The metadata's template; when there is none, the default the vocabulary's tokens tell of, else
  // ChatML. kInvalidArgument when it is no template; kUnimplemented names the Jinja construct that
  // isn't supported.
  static absl::StatusOr<std::unique_ptr<ChatTemplate>> Create(const GgufMetadata& metadata);
  // From template source, with the texts of the BOS and EOS tokens for {{ bos_token }}.
  static absl::StatusOr<std::unique_ptr<ChatTemplate>> FromSource(absl::string_view source,
                                                                  std::string bos_token,
                                                                  std::string eos_token);
  virtual ~ChatTemplate() = default;

  // The prompt, ending where the assistant speaks next. It contains control tokens by name: encode
  // it with parse_special, and without adding BOS if it begins with one. kInvalidArgument carries
  // the template's own complaint (raise_exception) or a bound that was exceeded.
  virtual absl::StatusOr<std::string> Render(const std::vector<ChatMessage>& messages) const = 0;
};

}  // namespace renga::model

#endif  // RENGA_MODEL_CHAT_TEMPLATE_H_

// Chat formats by name, for model files that carry a name instead of a template, or nothing.
#ifndef RENGA_MODEL_CHAT_TEMPLATE_DEFAULTS_H_
#define RENGA_MODEL_CHAT_TEMPLATE_DEFAULTS_H_

#include <optional>
#include <string>
#include <vector>

#include "absl/strings/string_view.h"

namespace renga::model {

// The template source of "chatml", "llama2", "llama3", "mistral", "gemma", "phi3", "zephyr" or
// "alpaca".
std::optional<absl::string_view> NamedChatTemplate(absl::string_view name);

// Which of them a vocabulary was made for, as far as its tokens tell; ChatML otherwise.
absl::string_view GuessChatTemplate(const std::vector<std::string>& tokens);

}  // namespace renga::model

#endif  // RENGA_MODEL_CHAT_TEMPLATE_DEFAULTS_H_

#include "model/chat_template.h"

#include <limits>
#include <optional>
#include <utility>

#include "absl/status/status.h"
#include "base/status_macros.h"
#include "model/chat_template_defaults.h"
#include "model/jinja/budget.h"
#include "model/jinja/template.h"

namespace renga::model {
namespace {

class JinjaChatTemplate final : public ChatTemplate {
 public:
  JinjaChatTemplate(std::unique_ptr<jinja::Template> source, std::string bos_token,
                    std::string eos_token)
      : template_(std::move(source)),
        bos_token_(std::move(bos_token)),
        eos_token_(std::move(eos_token)) {}

  absl::StatusOr<std::string> Render(const std::vector<ChatMessage>& messages) const override;

 private:
  const std::unique_ptr<jinja::Template> template_;
  const std::string bos_token_;
  const std::string eos_token_;
};

absl::StatusOr<jinja::Value> MessagesValue(const std::vector<ChatMessage>& messages) {
  // What users send is bounded where it comes in, not here.
  jinja::Budget budget(std::numeric_limits<int64_t>::max(), std::numeric_limits<int64_t>::max());
  std::vector<jinja::Value> values;
  for (const ChatMessage& message : messages) {
    jinja::Dict dict;
    dict.Set("role", jinja::Value(message.role));
    dict.Set("content", jinja::Value(message.content));
    RENGA_ASSIGN_OR_RETURN(jinja::Value value, jinja::Value::MakeDict(std::move(dict), &budget));
    values.push_back(std::move(value));
  }
  return jinja::Value::MakeList(std::move(values), &budget);
}

// The names that Hugging Face gives to every chat template.
absl::StatusOr<std::string> JinjaChatTemplate::Render(
    const std::vector<ChatMessage>& messages) const {
  jinja::Dict globals;
  RENGA_ASSIGN_OR_RETURN(jinja::Value list, MessagesValue(messages));
  globals.Set("messages", std::move(list));
  globals.Set("add_generation_prompt", jinja::Value(true));
  globals.Set("bos_token", jinja::Value(bos_token_));
  globals.Set("eos_token", jinja::Value(eos_token_));
  globals.Set("tools", jinja::Value::MakeNone());
  globals.Set("documents", jinja::Value::MakeNone());
  globals.Set("range", jinja::Value(jinja::Builtin::kRange));
  globals.Set("namespace", jinja::Value(jinja::Builtin::kNamespace));
  globals.Set("dict", jinja::Value(jinja::Builtin::kDict));
  globals.Set("raise_exception", jinja::Value(jinja::Builtin::kRaiseException));
  globals.Set("strftime_now", jinja::Value(jinja::Builtin::kStrftimeNow));
  return template_->Render(globals);
}

// The text of the token whose id `key` gives; empty when there is none.
absl::StatusOr<std::string> TokenText(const GgufMetadata& metadata,
                                      const std::vector<std::string>& tokens,
                                      absl::string_view key) {
  RENGA_ASSIGN_OR_RETURN(const std::optional<int64_t> id,
                         metadata.GetInt(key, -1, std::numeric_limits<uint32_t>::max()));
  if (!id.has_value() || *id < 0 || static_cast<uint64_t>(*id) >= tokens.size()) {
    return std::string();
  }
  return tokens[static_cast<size_t>(*id)];
}

}  // namespace

absl::StatusOr<std::unique_ptr<ChatTemplate>> ChatTemplate::Create(const GgufMetadata& metadata) {
  RENGA_ASSIGN_OR_RETURN(const std::optional<std::string> given,
                         metadata.GetString("tokenizer.chat_template"));
  RENGA_ASSIGN_OR_RETURN(const std::vector<std::string>* listed,
                         metadata.GetStrings("tokenizer.ggml.tokens"));
  const std::vector<std::string> none;
  const std::vector<std::string>& tokens = listed == nullptr ? none : *listed;
  RENGA_ASSIGN_OR_RETURN(std::string bos,
                         TokenText(metadata, tokens, "tokenizer.ggml.bos_token_id"));
  RENGA_ASSIGN_OR_RETURN(std::string eos,
                         TokenText(metadata, tokens, "tokenizer.ggml.eos_token_id"));
  if (!given.has_value() || given->empty()) {
    return FromSource(GuessChatTemplate(tokens), std::move(bos), std::move(eos));
  }
  return FromSource(NamedChatTemplate(*given).value_or(*given), std::move(bos), std::move(eos));
}

absl::StatusOr<std::unique_ptr<ChatTemplate>> ChatTemplate::FromSource(absl::string_view source,
                                                                       std::string bos_token,
                                                                       std::string eos_token) {
  RENGA_ASSIGN_OR_RETURN(std::unique_ptr<jinja::Template> parsed, jinja::Template::Parse(source));
  auto result = std::make_unique<JinjaChatTemplate>(std::move(parsed), std::move(bos_token),
                                                    std::move(eos_token));
  // Filters and methods are only looked up where a template comes across them, so that an
  // unsupported one among its tool calls does no harm. A question tries those that matter.
  const absl::Status trial = result->Render({{"user", "Hello"}}).status();
  if (absl::IsUnimplemented(trial)) return trial;
  return result;
}

}  // namespace renga::model

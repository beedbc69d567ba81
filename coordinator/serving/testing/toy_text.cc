#include "coordinator/serving/testing/toy_text.h"

#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"

namespace renga::serving {

using model::TokenId;

absl::StatusOr<std::vector<TokenId>> ToyTokenizer::Encode(
    absl::string_view text, const model::EncodeOptions& options) const {
  std::vector<TokenId> ids;
  if (options.add_bos) ids.push_back(0);
  while (!text.empty()) {
    if (options.parse_special && absl::ConsumePrefix(&text, "<s>")) {
      ids.push_back(0);
    } else if (options.parse_special && absl::ConsumePrefix(&text, "</s>")) {
      ids.push_back(1);
    } else {
      const auto byte = static_cast<unsigned char>(text.front());
      text.remove_prefix(1);
      if (byte >= 32 && byte < 127) {
        ids.push_back(byte - 30);
      } else if (byte == '\n') {
        ids.push_back(97);
      } else {
        ids.push_back(byte == 0xc3 ? 98 : 99);
      }
    }
  }
  return ids;
}

std::string ToyTokenizer::Piece(TokenId id) const {
  if (id < 0 || id >= kVocabSize) return "";
  if (id == 0) return "<s>";
  if (id == 1) return "</s>";
  if (id < 97) return std::string(1, static_cast<char>(id + 30));
  if (id == 97) return "\n";
  if (id == 98) return "\xc3";
  if (id == 99) return "\xa9";
  const char first = static_cast<char>('a' + id % 26);
  return {' ', first, static_cast<char>('a' + id % 7)};
}

absl::StatusOr<std::string> ToyChatTemplate::Render(
    const std::vector<model::ChatMessage>& messages) const {
  std::string text = "<s>";
  for (const model::ChatMessage& message : messages) {
    if (message.role != "system" && message.role != "user" && message.role != "assistant") {
      return absl::InvalidArgumentError(absl::StrCat("unknown role ", message.role));
    }
    absl::StrAppend(&text, message.role, ":", message.content, "</s>");
  }
  return text + "assistant:";
}

}  // namespace renga::serving

// Cuts template source into tokens and settles the white space around tags, the way Hugging Face
// renders chat templates: trim_blocks and lstrip_blocks are on.
#ifndef RENGA_MODEL_JINJA_LEXER_H_
#define RENGA_MODEL_JINJA_LEXER_H_

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace renga::model::jinja {

enum class TokenKind {
  kText,         // between tags
  kOutputBegin,  // {{
  kOutputEnd,
  kBlockBegin,  // {%
  kBlockEnd,
  kName,
  kString,  // text is what it means, escapes resolved
  kInteger,
  kFloat,
  kOperator,
  kEnd,  // of the source; always the last token
};

struct Token {
  TokenKind kind;
  std::string text;
  int line;  // from 1
};

// kInvalidArgument says what is wrong in which line.
absl::StatusOr<std::vector<Token>> Tokenize(absl::string_view source);

}  // namespace renga::model::jinja

#endif  // RENGA_MODEL_JINJA_LEXER_H_

// The parser's view of the tokens: the current one, one ahead, and how deep the parser is.
#ifndef RENGA_MODEL_JINJA_TOKEN_STREAM_H_
#define RENGA_MODEL_JINJA_TOKEN_STREAM_H_

#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "model/jinja/lexer.h"

namespace renga::model::jinja {

class TokenStream {
 public:
  // `tokens` ends with kEnd.
  explicit TokenStream(std::vector<Token> tokens) : tokens_(std::move(tokens)) {}

  const Token& current() const { return tokens_[position_]; }
  const Token& ahead() const {
    return tokens_[position_ + 1 < tokens_.size() ? position_ + 1 : position_];
  }
  void Next() {
    if (position_ + 1 < tokens_.size()) ++position_;
  }

  bool At(TokenKind kind) const { return current().kind == kind; }
  bool AtOperator(absl::string_view op) const { return Is(current(), TokenKind::kOperator, op); }
  bool AtName(absl::string_view name) const { return Is(current(), TokenKind::kName, name); }
  bool AheadIsName(absl::string_view name) const { return Is(ahead(), TokenKind::kName, name); }
  bool AheadIsOperator(absl::string_view op) const { return Is(ahead(), TokenKind::kOperator, op); }

  bool SkipOperator(absl::string_view op) {
    const bool found = AtOperator(op);
    if (found) Next();
    return found;
  }
  bool SkipName(absl::string_view name) {
    const bool found = AtName(name);
    if (found) Next();
    return found;
  }
  absl::Status ExpectOperator(absl::string_view op) {
    return SkipOperator(op) ? absl::OkStatus() : Fail(absl::StrCat("expected ", op));
  }
  absl::Status Expect(TokenKind kind, absl::string_view what) {
    if (!At(kind)) return Fail(absl::StrCat("expected ", what));
    Next();
    return absl::OkStatus();
  }
  absl::StatusOr<std::string> ExpectName() {
    if (!At(TokenKind::kName)) return Fail("expected a name");
    std::string name = current().text;
    Next();
    return name;
  }

  absl::Status Fail(absl::string_view what) const {
    const std::string& text = current().text;
    return absl::InvalidArgumentError(
        absl::StrCat("chat template, line ", current().line, ": ", what,
                     text.empty() ? "" : absl::StrCat(" at \"", text.substr(0, 40), "\"")));
  }
  absl::Status Unsupported(absl::string_view what) const {
    return absl::UnimplementedError(
        absl::StrCat("chat template, line ", current().line, ": ", what, " is not supported"));
  }

 private:
  static bool Is(const Token& token, TokenKind kind, absl::string_view text) {
    return token.kind == kind && token.text == text;
  }

  std::vector<Token> tokens_;
  size_t position_ = 0;
};

}  // namespace renga::model::jinja

#endif  // RENGA_MODEL_JINJA_TOKEN_STREAM_H_

#include "model/jinja/lexer.h"

#include <algorithm>
#include <optional>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "absl/strings/strip.h"
#include "base/status_macros.h"
#include "model/jinja/string_literal.h"

namespace renga::model::jinja {
namespace {

// Longest first, so that the first that fits is the right one.
constexpr absl::string_view kOperators[] = {"//", "**", "==", "!=", ">=", "<=", "+", "-", "*",
                                            "/",  "%",  "~",  "(",  ")",  "[",  "]", "{", "}",
                                            ",",  ":",  ".",  "|",  "=",  "<",  ">", ";"};

bool IsNameStart(char c) { return absl::ascii_isalpha(static_cast<unsigned char>(c)) || c == '_'; }
bool IsDigit(char c) { return absl::ascii_isdigit(static_cast<unsigned char>(c)); }
bool IsNameChar(char c) { return IsNameStart(c) || IsDigit(c); }

// The template language knows one line end, and drops the one that ends the source.
std::string NormalizeLineEnds(absl::string_view source) {
  std::string text = absl::StrReplaceAll(source, {{"\r\n", "\n"}, {"\r", "\n"}});
  if (absl::EndsWith(text, "\n")) text.pop_back();
  return text;
}

class Lexer {
 public:
  explicit Lexer(std::string source) : source_(std::move(source)), rest_(source_) {}

  absl::StatusOr<std::vector<Token>> Run() {
    while (!rest_.empty()) RENGA_RETURN_IF_ERROR(LexTextAndTag());
    Add(TokenKind::kEnd, "");
    return std::move(tokens_);
  }

 private:
  absl::Status LexTextAndTag();
  void AddText(absl::string_view text, char tag, char sign);
  absl::Status LexComment();
  absl::Status LexTag(bool is_output);
  absl::Status LexExpressionToken();
  absl::Status LexString();
  void LexNumber();
  absl::Status LexOperator();
  bool ConsumeTagEnd(bool is_output);
  bool TryRaw(absl::Status* status);
  std::optional<size_t> MatchNamedTag(absl::string_view at, absl::string_view name) const;

  // Drops `count` bytes of the source.
  void Advance(size_t count) {
    line_ += static_cast<int>(std::count(rest_.begin(), rest_.begin() + count, '\n'));
    if (count > 0) line_starting_ = rest_[count - 1] == '\n';
    rest_.remove_prefix(count);
  }
  void SkipSpace() {
    size_t n = 0;
    while (n < rest_.size() && absl::ascii_isspace(static_cast<unsigned char>(rest_[n]))) ++n;
    Advance(n);
  }
  void Add(TokenKind kind, std::string text) { tokens_.push_back({kind, std::move(text), line_}); }
  absl::Status Fail(absl::string_view what) const {
    return absl::InvalidArgumentError(absl::StrCat("chat template, line ", line_, ": ", what));
  }

  const std::string source_;
  absl::string_view rest_;
  int line_ = 1;
  bool line_starting_ = true;  // nothing, or a line end, was dropped last
  std::string open_;           // closing brackets that are due inside a tag
  std::vector<Token> tokens_;
};

// The text up to the next tag, and that tag.
absl::Status Lexer::LexTextAndTag() {
  size_t at = rest_.find('{');
  while (at != absl::string_view::npos &&
         (at + 1 == rest_.size() || !absl::StrContains("{%#", rest_[at + 1]))) {
    at = rest_.find('{', at + 1);
  }
  if (at == absl::string_view::npos) {
    Add(TokenKind::kText, std::string(rest_));
    Advance(rest_.size());
    return absl::OkStatus();
  }
  const char tag = rest_[at + 1];
  char sign = at + 2 < rest_.size() ? rest_[at + 2] : ' ';
  // A sign in front of an expression is arithmetic unless it is the white space control's minus.
  if (sign != '-' && sign != '+') sign = ' ';
  AddText(rest_.substr(0, at), tag, sign);
  Advance(at);
  absl::Status raw_status;
  if (tag == '%' && TryRaw(&raw_status)) return raw_status;
  Advance(sign == ' ' ? 2 : 3);
  return tag == '#' ? LexComment() : LexTag(/*is_output=*/tag == '{');
}

// `text` stands in front of a tag, whose white space control decides how it ends.
void Lexer::AddText(absl::string_view text, char tag, char sign) {
  if (sign == '-') {
    text = absl::StripTrailingAsciiWhitespace(text);
  } else if (sign != '+' && tag != '{') {
    const size_t newline = text.rfind('\n');
    const size_t line = newline == absl::string_view::npos ? 0 : newline + 1;
    const bool whole_line = line > 0 || line_starting_;
    if (whole_line && absl::StripAsciiWhitespace(text.substr(line)).empty()) {
      text = text.substr(0, line);
    }
  }
  if (!text.empty()) Add(TokenKind::kText, std::string(text));
}

absl::Status Lexer::LexComment() {
  const size_t end = rest_.find("#}");
  if (end == absl::string_view::npos) return Fail("a comment has no end");
  const char sign = end > 0 ? rest_[end - 1] : ' ';
  Advance(end + 2);
  if (sign == '-') {
    SkipSpace();
  } else if (sign != '+' && absl::StartsWith(rest_, "\n")) {
    Advance(1);
  }
  return absl::OkStatus();
}

// If `at` is the tag {% name %}, how long it is, with the white space it takes along.
std::optional<size_t> Lexer::MatchNamedTag(absl::string_view at, absl::string_view name) const {
  absl::string_view rest = at.substr(2);
  if (!absl::ConsumePrefix(&rest, "-")) absl::ConsumePrefix(&rest, "+");
  rest = absl::StripLeadingAsciiWhitespace(rest);
  if (!absl::ConsumePrefix(&rest, name)) return std::nullopt;
  rest = absl::StripLeadingAsciiWhitespace(rest);
  if (absl::ConsumePrefix(&rest, "-%}")) {
    rest = absl::StripLeadingAsciiWhitespace(rest);
  } else if (!absl::ConsumePrefix(&rest, "%}")) {
    return std::nullopt;
  }
  return at.size() - rest.size();
}

// {% raw %}...{% endraw %} at the current position. False when there is none.
bool Lexer::TryRaw(absl::Status* status) {
  const std::optional<size_t> begin = MatchNamedTag(rest_, "raw");
  if (!begin.has_value()) return false;
  Advance(*begin);
  for (size_t at = rest_.find("{%"); at != absl::string_view::npos; at = rest_.find("{%", at + 2)) {
    const std::optional<size_t> end = MatchNamedTag(rest_.substr(at), "endraw");
    if (!end.has_value()) continue;
    AddText(rest_.substr(0, at), '%', at + 2 < rest_.size() ? rest_[at + 2] : ' ');
    Advance(at + *end);
    if (source_[source_.size() - rest_.size() - 1] == '}' && absl::StartsWith(rest_, "\n")) {
      Advance(1);
    }
    return true;
  }
  *status = Fail("a raw block has no end");
  return true;
}

absl::Status Lexer::LexTag(bool is_output) {
  Add(is_output ? TokenKind::kOutputBegin : TokenKind::kBlockBegin, "");
  open_.clear();
  while (true) {
    SkipSpace();
    if (rest_.empty()) return Fail("a tag has no end");
    if (open_.empty() && ConsumeTagEnd(is_output)) return absl::OkStatus();
    RENGA_RETURN_IF_ERROR(LexExpressionToken());
  }
}

bool Lexer::ConsumeTagEnd(bool is_output) {
  const absl::string_view end = is_output ? "}}" : "%}";
  const bool signed_end =
      absl::StartsWith(rest_, "-") || (!is_output && absl::StartsWith(rest_, "+"));
  const char sign = signed_end ? rest_[0] : ' ';
  if (!absl::StartsWith(rest_.substr(signed_end ? 1 : 0), end)) return false;
  Advance(end.size() + (signed_end ? 1 : 0));
  if (sign == '-') {
    SkipSpace();
  } else if (sign == ' ' && !is_output && absl::StartsWith(rest_, "\n")) {
    Advance(1);
  }
  Add(is_output ? TokenKind::kOutputEnd : TokenKind::kBlockEnd, "");
  return true;
}

absl::Status Lexer::LexExpressionToken() {
  const char c = rest_[0];
  if (IsNameStart(c)) {
    size_t n = 1;
    while (n < rest_.size() && IsNameChar(rest_[n])) ++n;
    Add(TokenKind::kName, std::string(rest_.substr(0, n)));
    Advance(n);
    return absl::OkStatus();
  }
  if (IsDigit(c)) {
    LexNumber();
    return absl::OkStatus();
  }
  if (c == '\'' || c == '"') return LexString();
  return LexOperator();
}

absl::Status Lexer::LexString() {
  const char quote = rest_[0];
  size_t end = 1;
  while (end < rest_.size() && rest_[end] != quote) end += rest_[end] == '\\' ? 2 : 1;
  if (end >= rest_.size()) return Fail("a string has no end");
  Add(TokenKind::kString, UnescapeLiteral(rest_.substr(1, end - 1)));
  Advance(end + 1);
  return absl::OkStatus();
}

void Lexer::LexNumber() {
  const auto skip_digits = [this](size_t n) {
    while (n < rest_.size() && (IsDigit(rest_[n]) || rest_[n] == '_')) ++n;
    return n;
  };
  size_t n = skip_digits(0);
  bool is_float = false;
  if (n + 1 < rest_.size() && rest_[n] == '.' && IsDigit(rest_[n + 1])) {
    n = skip_digits(n + 1);
    is_float = true;
  }
  if (n < rest_.size() && (rest_[n] == 'e' || rest_[n] == 'E')) {
    size_t digits = n + 1;
    if (digits < rest_.size() && (rest_[digits] == '+' || rest_[digits] == '-')) ++digits;
    if (digits < rest_.size() && IsDigit(rest_[digits])) {
      n = skip_digits(digits);
      is_float = true;
    }
  }
  Add(is_float ? TokenKind::kFloat : TokenKind::kInteger,
      absl::StrReplaceAll(rest_.substr(0, n), {{"_", ""}}));
  Advance(n);
}

absl::Status Lexer::LexOperator() {
  for (absl::string_view op : kOperators) {
    if (!absl::StartsWith(rest_, op)) continue;
    const size_t bracket = absl::string_view("([{").find(op);
    if (bracket != absl::string_view::npos) {
      open_.push_back(")]}"[bracket]);
    } else if (op == ")" || op == "]" || op == "}") {
      if (open_.empty() || open_.back() != op[0]) return Fail(absl::StrCat("unexpected ", op));
      open_.pop_back();
    }
    Add(TokenKind::kOperator, std::string(op));
    Advance(op.size());
    return absl::OkStatus();
  }
  return Fail(absl::StrCat("unexpected character ", rest_.substr(0, 1)));
}

}  // namespace

absl::StatusOr<std::vector<Token>> Tokenize(absl::string_view source) {
  return Lexer(NormalizeLineEnds(source)).Run();
}

}  // namespace renga::model::jinja

#include "coordinator/serving/grammar/gbnf_parser.h"

#include <algorithm>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "coordinator/serving/grammar/network.h"
#include "model/unicode.h"

namespace renga::grammar {
namespace {

constexpr int kMaxGroups = 64;  // inside each other
constexpr int64_t kMaxRepetitions = 65536;
constexpr absl::string_view kDefines = "::=";

bool IsNameByte(char c) {
  return absl::ascii_isalnum(static_cast<unsigned char>(c)) || c == '-' || c == '_';
}

class Parser {
 public:
  explicit Parser(absl::string_view text) : text_(text) {}

  absl::StatusOr<RuleSet> Parse() {
    SkipSpace();
    while (at_ < text_.size()) RENGA_RETURN_IF_ERROR(ParseRule());
    for (size_t i = 0; i < rules_.rules.size(); ++i) {
      if (!defined_[i]) {
        return absl::InvalidArgumentError(absl::StrCat("the grammar names a rule ",
                                                       rules_.rules[i].name.substr(0, 80),
                                                       " but does not define it"));
      }
    }
    rules_.root = rules_.Find("root");
    if (rules_.root < 0) {
      return absl::InvalidArgumentError("the grammar has no rule named root, where texts begin");
    }
    return std::move(rules_);
  }

 private:
  absl::Status Wrong(absl::string_view what) const {
    const auto line =
        1 + std::count(text_.begin(), text_.begin() + static_cast<ptrdiff_t>(at_), '\n');
    return absl::InvalidArgumentError(absl::StrCat("line ", line, " of the grammar: ", what));
  }

  absl::string_view rest() const { return text_.substr(at_); }
  char Peek() const { return at_ < text_.size() ? text_[at_] : '\0'; }

  // Spaces, lines and comments.
  void SkipSpace() {
    while (at_ < text_.size()) {
      if (text_[at_] == '#') {
        at_ = std::min(text_.find('\n', at_), text_.size());
      } else if (absl::ascii_isspace(static_cast<unsigned char>(text_[at_]))) {
        ++at_;
      } else {
        return;
      }
    }
  }

  absl::string_view TakeName() {
    const size_t begin = at_;
    while (at_ < text_.size() && IsNameByte(text_[at_])) ++at_;
    return text_.substr(begin, at_ - begin);
  }

  int64_t RuleNamed(absl::string_view name) {
    if (const int64_t known = rules_.Find(name); known >= 0) return known;
    defined_.push_back(false);
    return rules_.Add(std::string(name), {});
  }

  absl::Status ParseRule() {
    const absl::string_view name = TakeName();
    if (name.empty()) return Wrong("expected a rule: a name, ::= and what it stands for");
    const auto rule = static_cast<size_t>(RuleNamed(name));
    if (std::ssize(rules_.rules) > kMaxRules) return Wrong("there are too many rules");
    if (defined_[rule])
      return Wrong(absl::StrCat("rule ", name.substr(0, 80), " is defined twice"));
    SkipSpace();
    if (!absl::StartsWith(rest(), kDefines)) {
      return Wrong(absl::StrCat("expected ::= after the name ", name.substr(0, 80)));
    }
    at_ += kDefines.size();
    defined_[rule] = true;
    RENGA_ASSIGN_OR_RETURN(Expression expression, ParseChoice(0));
    if (at_ < text_.size() && !AtRule()) return Wrong("expected a rule, text, class or group");
    rules_.rules[rule].expression = std::move(expression);
    return absl::OkStatus();
  }

  // Whether the next rule begins here.
  bool AtRule() {
    const size_t begin = at_;
    const bool named = !TakeName().empty();
    SkipSpace();
    const bool defines = named && absl::StartsWith(rest(), kDefines);
    at_ = begin;
    return defines;
  }

  absl::StatusOr<Expression> ParseChoice(int depth) {
    if (depth > kMaxGroups) {
      return Wrong(absl::StrCat("groups lie in each other more than ", kMaxGroups, " deep"));
    }
    std::vector<Expression> parts;
    while (true) {
      RENGA_ASSIGN_OR_RETURN(Expression part, ParseSequence(depth));
      parts.push_back(std::move(part));
      if (Peek() != '|') break;
      ++at_;
    }
    return parts.size() == 1 ? std::move(parts.front()) : Choice(std::move(parts));
  }

  absl::StatusOr<Expression> ParseSequence(int depth) {
    std::vector<Expression> parts;
    for (SkipSpace(); at_ < text_.size(); SkipSpace()) {
      const char c = Peek();
      if (c == '|' || c == ')') break;
      if (IsNameByte(c)) {
        if (AtRule()) break;
        parts.push_back(RuleCall(RuleNamed(TakeName())));
      } else if (c == '"') {
        RENGA_ASSIGN_OR_RETURN(parts.emplace_back(), ParseText());
      } else if (c == '[') {
        RENGA_ASSIGN_OR_RETURN(parts.emplace_back(), ParseClass());
      } else if (c == '.') {
        ++at_;
        parts.push_back(Class({{0, kLastCodePoint}}));
      } else if (c == '(') {
        ++at_;
        RENGA_ASSIGN_OR_RETURN(parts.emplace_back(), ParseChoice(depth + 1));
        if (Peek() != ')') return Wrong("a group is not closed: expected )");
        ++at_;
      } else if (c == '*' || c == '+' || c == '?' || c == '{') {
        if (parts.empty()) return Wrong("nothing stands before a repetition");
        RENGA_RETURN_IF_ERROR(ParseRepeat(parts.back()));
      } else {
        const bool readable = absl::ascii_isprint(static_cast<unsigned char>(c));
        return Wrong(absl::StrCat("did not expect ", readable ? std::string(1, c) : "this byte",
                                  ": texts stand in \"quotes\""));
      }
    }
    return parts.size() == 1 ? std::move(parts.front()) : Sequence(std::move(parts));
  }

  absl::Status ParseRepeat(Expression& part) {
    // Repetitions of repetitions lie in each other like groups.
    if (Depth(part) > kMaxGroups) return Wrong("too many repetitions of one part");
    int64_t least = 0;
    int64_t most = Expression::kNoLimit;
    const char sign = text_[at_++];
    if (sign == '+') least = 1;
    if (sign == '?') most = 1;
    if (sign == '{') {
      RENGA_RETURN_IF_ERROR(ParseCounts(least, most));
    }
    part = Repeat(std::move(part), least, most);
    return absl::OkStatus();
  }

  static int Depth(const Expression& expression) {
    int depth = 0;
    for (const Expression* at = &expression; at->kind == Expression::Kind::kRepeat;
         at = &at->parts.front()) {
      ++depth;
    }
    return depth;
  }

  // After {
  absl::Status ParseCounts(int64_t& least, int64_t& most) {
    const auto wrong = [this] { return Wrong("expected a repetition like {3}, {2,} or {0,5}"); };
    SkipSpace();
    const bool has_least = absl::ascii_isdigit(static_cast<unsigned char>(Peek()));
    if (has_least) {
      RENGA_ASSIGN_OR_RETURN(least, ParseCount());
    }
    SkipSpace();
    if (Peek() == ',') {
      ++at_;
      SkipSpace();
      if (absl::ascii_isdigit(static_cast<unsigned char>(Peek()))) {
        RENGA_ASSIGN_OR_RETURN(most, ParseCount());
      } else if (!has_least) {
        return wrong();
      }
      SkipSpace();
    } else {
      if (!has_least) return wrong();
      most = least;
    }
    if (Peek() != '}') return wrong();
    ++at_;
    if (most != Expression::kNoLimit && most < least) {
      return Wrong("a repetition ends below where it begins");
    }
    return absl::OkStatus();
  }

  absl::StatusOr<int64_t> ParseCount() {
    int64_t count = 0;
    for (; absl::ascii_isdigit(static_cast<unsigned char>(Peek())); ++at_) {
      count = 10 * count + (Peek() - '0');
      if (count > kMaxRepetitions) {
        return Wrong(absl::StrCat("a repetition count is above ", kMaxRepetitions));
      }
    }
    return count;
  }

  absl::StatusOr<Expression> ParseText() {
    ++at_;
    std::string text;
    while (Peek() != '"') {
      RENGA_ASSIGN_OR_RETURN(const char32_t c, ParseCharacter("a text is not closed: expected \""));
      model::AppendUtf8(c, &text);
    }
    ++at_;
    return Text(std::move(text));
  }

  absl::StatusOr<Expression> ParseClass() {
    constexpr absl::string_view kOpen = "a class is not closed: expected ]";
    ++at_;
    const bool inverted = Peek() == '^';
    if (inverted) ++at_;
    std::vector<CodeRange> ranges;
    while (Peek() != ']') {
      RENGA_ASSIGN_OR_RETURN(const char32_t first, ParseCharacter(kOpen));
      char32_t last = first;
      // A - before the end of the class is just that.
      if (Peek() == '-' && at_ + 1 < text_.size() && text_[at_ + 1] != ']') {
        ++at_;
        RENGA_ASSIGN_OR_RETURN(last, ParseCharacter(kOpen));
        if (last < first) return Wrong("a range of a class ends below where it begins");
      }
      ranges.push_back({first, last});
    }
    ++at_;
    Expression expression = Class(inverted ? Complement(std::move(ranges)) : std::move(ranges));
    if (expression.ranges.empty()) return Wrong("a class has no character in it");
    return expression;
  }

  absl::StatusOr<char32_t> ParseCharacter(absl::string_view unclosed) {
    if (at_ >= text_.size()) return Wrong(unclosed);
    if (Peek() == '\\') return ParseEscape();
    const model::Utf8Unit unit = model::InspectUtf8(rest());
    if (unit.state != model::Utf8State::kWhole) return Wrong("the text is not UTF-8");
    const char32_t c = model::DecodeChar(rest()).code_point;
    at_ += unit.length;
    return c;
  }

  absl::StatusOr<char32_t> ParseEscape() {
    ++at_;
    if (at_ >= text_.size()) return Wrong("nothing stands behind a \\");
    const char c = text_[at_++];
    switch (c) {
      case 'n':
        return U'\n';
      case 'r':
        return U'\r';
      case 't':
        return U'\t';
      case 'x':
        return ParseHex(2);
      case 'u':
        return ParseHex(4);
      case 'U':
        return ParseHex(8);
      default:
        if (absl::StrContains("\"\\[]-^", c)) return static_cast<unsigned char>(c);
        return Wrong("an unknown character stands behind a \\");
    }
  }

  absl::StatusOr<char32_t> ParseHex(int digits) {
    char32_t c = 0;
    for (int i = 0; i < digits; ++i, ++at_) {
      const char digit = Peek();
      if (!absl::ascii_isxdigit(static_cast<unsigned char>(digit))) {
        return Wrong(absl::StrCat("expected ", digits, " hexadecimal digits"));
      }
      const char low = absl::ascii_tolower(static_cast<unsigned char>(digit));
      c = 16 * c + static_cast<char32_t>(low <= '9' ? low - '0' : low - 'a' + 10);
    }
    if (c > kLastCodePoint || (c >= 0xD800 && c <= 0xDFFF)) {
      return Wrong("an escape stands for no character");
    }
    return c;
  }

  const absl::string_view text_;
  size_t at_ = 0;
  RuleSet rules_;
  std::vector<bool> defined_;
};

}  // namespace

absl::StatusOr<RuleSet> ParseGbnf(absl::string_view text) {
  if (text.size() > kMaxGrammarBytes) {
    return absl::InvalidArgumentError(absl::StrCat("the grammar is ", text.size(),
                                                   " bytes long; the most is ", kMaxGrammarBytes));
  }
  return Parser(text).Parse();
}

}  // namespace renga::grammar

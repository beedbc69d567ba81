#include "coordinator/serving/grammar/pattern.h"

#include <algorithm>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "coordinator/serving/grammar/json_characters.h"
#include "coordinator/serving/grammar/network.h"
#include "coordinator/serving/grammar/pattern_piece.h"
#include "model/unicode.h"

namespace renga::grammar {
namespace {

using Ranges = std::vector<CodeRange>;

constexpr int kMostGroups = 64;  // inside each other
constexpr int64_t kMostCount = 65536;

Ranges NotLineEnds() { return Complement({{'\n', '\n'}, {'\r', '\r'}, {0x2028, 0x2029}}); }

// What \d, \w, \s and their opposites stand for; empty: it is none of these.
Ranges NamedClass(char letter) {
  const char lower = absl::ascii_tolower(static_cast<unsigned char>(letter));
  Ranges ranges;
  if (lower == 'd') ranges = {{'0', '9'}};
  if (lower == 'w') ranges = {{'0', '9'}, {'A', 'Z'}, {'_', '_'}, {'a', 'z'}};
  if (lower == 's') {
    ranges = {{'\t', '\r'},     {' ', ' '},       {0xA0, 0xA0},     {0x1680, 0x1680},
              {0x2000, 0x200A}, {0x2028, 0x2029}, {0x202F, 0x202F}, {0x205F, 0x205F},
              {0x3000, 0x3000}, {0xFEFF, 0xFEFF}};
  }
  return ranges.empty() || letter == lower ? ranges : Complement(std::move(ranges));
}

class PatternParser {
 public:
  // One of the outermost alternatives.
  struct Alternative {
    bool at_begin = false;  // it began with ^
    bool at_end = false;
    std::vector<Piece> pieces;
  };

  PatternParser(absl::string_view text, RuleSet& rules) : text_(text), rules_(rules) {}

  absl::StatusOr<std::vector<Alternative>> Parse() {
    std::vector<Alternative> alternatives;
    do {
      Alternative& alternative = alternatives.emplace_back();
      alternative.at_begin = Take("^");
      RENGA_ASSIGN_OR_RETURN(alternative.pieces, ParseSequence(0));
      alternative.at_end = Take("$");
    } while (Take("|"));
    if (!AtEnd()) return Wrong("a ) closes no group; write \\) for the character");
    return alternatives;
  }

 private:
  absl::Status Wrong(absl::string_view what) const {
    const auto character = std::count_if(text_.begin(), text_.begin() + static_cast<ptrdiff_t>(at_),
                                         [](char c) { return (c & 0xC0) != 0x80; });
    return absl::InvalidArgumentError(absl::StrCat("character ", character + 1, ": ", what));
  }

  bool AtEnd() const { return at_ >= text_.size(); }
  char Peek() const { return AtEnd() ? '\0' : text_[at_]; }
  absl::string_view rest() const { return text_.substr(std::min(at_, text_.size())); }

  bool Take(absl::string_view what) {
    if (!absl::StartsWith(rest(), what)) return false;
    at_ += what.size();
    return true;
  }

  // Whether the $ here is the last of an outermost alternative.
  bool AtLastAnchor(int depth) const {
    return depth == 0 && (rest() == "$" || absl::StartsWith(rest(), "$|"));
  }

  absl::StatusOr<std::vector<Piece>> ParseSequence(int depth) {
    std::vector<Piece> pieces;
    while (!AtEnd() && Peek() != '|' && Peek() != ')' && !AtLastAnchor(depth)) {
      if (std::ssize(rules_.rules) > kMaxRules) return Wrong("too many classes of characters");
      RENGA_ASSIGN_OR_RETURN(Piece piece, ParseAtom(depth));
      RENGA_ASSIGN_OR_RETURN(pieces.emplace_back(), ParseRepetition(std::move(piece)));
    }
    return pieces;
  }

  absl::StatusOr<Piece> ParseAtom(int depth) {
    switch (Peek()) {
      case '(':
        return ParseGroup(depth + 1);
      case '^':
      case '$':
        return Wrong(
            "^ and $ are supported only at the two ends of the pattern or of its outermost "
            "alternatives");
      case '*':
      case '+':
      case '?':
        return Wrong("a repetition repeats nothing; write \\ before it for the character");
      case '{':
        return Wrong("a { repeats nothing; write \\{ for the character");
      default:
        break;
    }
    RENGA_ASSIGN_OR_RETURN(Ranges ranges, ParseCharacters());
    return CharacterPiece(JsonCharacter(std::move(ranges), rules_));
  }

  // What stands for one character.
  absl::StatusOr<Ranges> ParseCharacters() {
    if (Take(".")) return NotLineEnds();
    if (Take("[")) return ParseClass();
    return ParseCharacter();
  }

  absl::StatusOr<Piece> ParseGroup(int depth) {
    if (depth > kMostGroups) {
      return Wrong(absl::StrCat("groups lie in each other more than ", kMostGroups, " deep"));
    }
    for (const absl::string_view look : {"(?=", "(?!", "(?<=", "(?<!"}) {
      if (absl::StartsWith(rest(), look)) return Wrong("looking ahead or behind is not supported");
    }
    Take("(");
    if (Take("?<")) {
      // Nothing refers to the group's name.
      at_ = std::min(text_.find('>', at_), text_.size());
      if (!Take(">")) return Wrong("the name of a group is not closed: expected >");
    } else if (Take("?") && !Take(":")) {
      return Wrong("expected a group like (...), (?:...) or (?<name>...)");
    }
    std::vector<Piece> alternatives;
    do {
      RENGA_ASSIGN_OR_RETURN(std::vector<Piece> pieces, ParseSequence(depth));
      alternatives.push_back(InSequence(std::move(pieces)));
    } while (Take("|"));
    if (!Take(")")) return Wrong("a group is not closed: expected )");
    return OneOf(std::move(alternatives));
  }

  // As often as what stands behind the piece says.
  absl::StatusOr<Piece> ParseRepetition(Piece piece) {
    int64_t least = 0;
    int64_t most = Expression::kNoLimit;
    if (Take("+")) {
      least = 1;
    } else if (Take("?")) {
      most = 1;
    } else if (Take("{")) {
      RENGA_RETURN_IF_ERROR(ParseCounts(least, most));
    } else if (!Take("*")) {
      return piece;
    }
    // Lazy: the same strings match.
    Take("?");
    return Repeated(std::move(piece), least, most);
  }

  // Behind {
  absl::Status ParseCounts(int64_t& least, int64_t& most) {
    RENGA_ASSIGN_OR_RETURN(least, ParseCount());
    if (!Take(",")) {
      most = least;
    } else if (Peek() != '}') {
      RENGA_ASSIGN_OR_RETURN(most, ParseCount());
      if (most < least) return Wrong("a repetition ends below where it begins");
    }
    return Take("}") ? absl::OkStatus() : NoCount();
  }

  absl::Status NoCount() const {
    return Wrong("expected a repetition like {3}, {2,} or {0,5}; write \\{ for the character");
  }

  absl::StatusOr<int64_t> ParseCount() {
    if (!absl::ascii_isdigit(static_cast<unsigned char>(Peek()))) return NoCount();
    int64_t count = 0;
    for (; absl::ascii_isdigit(static_cast<unsigned char>(Peek())); ++at_) {
      count = 10 * count + (Peek() - '0');
      if (count > kMostCount) {
        return Wrong(absl::StrCat("a repetition count is above ", kMostCount));
      }
    }
    return count;
  }

  // Behind [
  absl::StatusOr<Ranges> ParseClass() {
    const bool inverted = Take("^");
    Ranges ranges;
    while (!Take("]")) {
      RENGA_ASSIGN_OR_RETURN(const Ranges some, ParseCharacter());
      ranges.insert(ranges.end(), some.begin(), some.end());
      // A - before the end of the class is just that, and also beside \d and the like.
      if (Peek() != '-' || absl::StartsWith(rest(), "-]")) continue;
      Take("-");
      RENGA_ASSIGN_OR_RETURN(const Ranges last, ParseCharacter());
      if (!IsSingle(some) || !IsSingle(last)) {
        ranges.push_back({'-', '-'});
        ranges.insert(ranges.end(), last.begin(), last.end());
        continue;
      }
      ranges.back().last = last[0].last;
      if (last[0].last < some[0].first) {
        return Wrong("a range of a class ends below where it begins");
      }
    }
    ranges = inverted ? Complement(std::move(ranges)) : Normalize(std::move(ranges));
    if (ranges.empty()) return Wrong("a class has no character in it");
    return ranges;
  }

  static bool IsSingle(const Ranges& ranges) {
    return ranges.size() == 1 && ranges[0].first == ranges[0].last;
  }

  // One character, or what an escape like \d stands for.
  absl::StatusOr<Ranges> ParseCharacter() {
    // Only classes go on up to there.
    if (AtEnd()) return Wrong("a class is not closed: expected ]");
    if (Take("\\")) return ParseEscape();
    const model::DecodedChar c = model::DecodeChar(rest());
    at_ += c.length;
    return Ranges{{c.code_point, c.code_point}};
  }

  // Behind a backslash.
  absl::StatusOr<Ranges> ParseEscape() {
    if (AtEnd()) return Wrong("nothing stands behind a \\");
    const char letter = Peek();
    Ranges named = NamedClass(letter);
    if (!named.empty()) {
      ++at_;
      return named;
    }
    RENGA_ASSIGN_OR_RETURN(const char32_t c, ParseEscapedCharacter(letter));
    return Ranges{{c, c}};
  }

  absl::StatusOr<char32_t> ParseEscapedCharacter(char letter) {
    constexpr std::pair<char, char> kControls[] = {
        {'t', '\t'}, {'n', '\n'}, {'v', '\v'}, {'f', '\f'}, {'r', '\r'}};
    for (const auto& [name, control] : kControls) {
      if (letter != name) continue;
      ++at_;
      return static_cast<char32_t>(control);
    }
    if (Take("x")) return ParseHex(2);
    if (Take("u")) return ParseUnit();
    if (letter == 'b' || letter == 'B') return Wrong("\\b and \\B are not supported");
    if (letter == 'p' || letter == 'P') {
      return Wrong("classes of Unicode properties are not supported; write out the ranges");
    }
    if (letter == 'k' || (letter >= '1' && letter <= '9')) {
      return Wrong("references back to groups are not supported");
    }
    if (!absl::ascii_ispunct(static_cast<unsigned char>(letter))) {
      return Wrong("an unknown character stands behind a \\");
    }
    ++at_;
    return static_cast<char32_t>(letter);
  }

  // Behind \u: the digits of a character, or of the two halves (surrogates) of one.
  absl::StatusOr<char32_t> ParseUnit() {
    RENGA_ASSIGN_OR_RETURN(const char32_t first, ParseHex(4));
    const auto is_half = [](char32_t c, char32_t begin) { return c >= begin && c < begin + 0x400; };
    if (is_half(first, 0xD800) && Take("\\u")) {
      RENGA_ASSIGN_OR_RETURN(const char32_t second, ParseHex(4));
      if (is_half(second, 0xDC00)) return 0x10000 + ((first - 0xD800) << 10) + (second - 0xDC00);
    }
    if (is_half(first, 0xD800) || is_half(first, 0xDC00)) {
      return Wrong("an escape is half a character");
    }
    return first;
  }

  absl::StatusOr<char32_t> ParseHex(int digits) {
    char32_t c = 0;
    for (int i = 0; i < digits; ++i, ++at_) {
      const auto digit = static_cast<unsigned char>(Peek());
      if (!absl::ascii_isxdigit(digit)) {
        return Wrong(absl::StrCat("expected ", digits, " hexadecimal digits"));
      }
      const auto low = static_cast<char32_t>(absl::ascii_tolower(digit));
      c = 16 * c + (low <= '9' ? low - '0' : low - 'a' + 10);
    }
    return c;
  }

  const absl::string_view text_;
  size_t at_ = 0;
  RuleSet& rules_;
};

}  // namespace

absl::StatusOr<Expression> StringsMatching(absl::string_view pattern, int64_t least, int64_t most,
                                           RuleSet& rules) {
  RENGA_ASSIGN_OR_RETURN(std::vector<PatternParser::Alternative> alternatives,
                         PatternParser(pattern, rules).Parse());
  const Piece anything = Repeated(CharacterPiece(rules.Call("char")), 0, Expression::kNoLimit);
  std::vector<Expression> ways;
  for (auto& [at_begin, at_end, pieces] : alternatives) {
    if (!at_begin) pieces.insert(pieces.begin(), anything);
    if (!at_end) pieces.push_back(anything);
    RENGA_ASSIGN_OR_RETURN(std::optional<Expression> way, OfLength(std::move(pieces), least, most));
    if (way.has_value()) ways.push_back(*std::move(way));
  }
  if (ways.empty()) {
    return absl::InvalidArgumentError("no string that it matches has minLength to maxLength");
  }
  return Choice(std::move(ways));
}

}  // namespace renga::grammar

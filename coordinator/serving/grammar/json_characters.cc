#include "coordinator/serving/grammar/json_characters.h"

#include <algorithm>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"

namespace renga::grammar {
namespace {

constexpr char32_t kLastAscii = 0x7F;

// The last one need not be escaped, but cannot be seen.
const CodeRange kEscaped[] = {{0, 0x1F}, {'"', '"'}, {'\\', '\\'}, {0x7F, 0x7F}};

constexpr std::pair<char32_t, char> kShort[] = {{'"', '"'},  {'\\', '\\'}, {'\b', 'b'}, {'\f', 'f'},
                                                {'\n', 'n'}, {'\r', 'r'},  {'\t', 't'}};

bool Has(const std::vector<CodeRange>& ranges, char32_t c) {
  return std::any_of(ranges.begin(), ranges.end(),
                     [&](const CodeRange& range) { return c >= range.first && c <= range.last; });
}

// Those of the characters that stand for themselves.
std::vector<CodeRange> Plain(const std::vector<CodeRange>& ranges) {
  std::vector<CodeRange> others = Complement(ranges);
  others.insert(others.end(), std::begin(kEscaped), std::end(kEscaped));
  return Complement(std::move(others));
}

bool HasShort(char32_t c) {
  return std::any_of(std::begin(kShort), std::end(kShort),
                     [&](const auto& pair) { return pair.first == c; });
}

// Adds those with an escape of four digits, a way for each of the sixteens that they lie in.
void AddLongEscapes(const std::vector<CodeRange>& ranges, std::vector<Expression>& ways) {
  for (const char32_t high : {0U, 1U, 7U}) {
    std::vector<CodeRange> last_digits;
    for (char32_t low = 0; low < 16; ++low) {
      const char32_t c = 16 * high + low;
      const bool escaped = c < 0x20 || c == kLastAscii;
      if (!escaped || HasShort(c) || !Has(ranges, c)) continue;
      const char32_t digit = low < 10 ? '0' + low : 'a' + low - 10;
      last_digits.push_back({digit, digit});
      if (low >= 10) last_digits.push_back({'A' + low - 10, 'A' + low - 10});
    }
    if (last_digits.empty()) continue;
    ways.push_back(Sequence({Text(absl::StrCat("\\u00", high)), Class(std::move(last_digits))}));
  }
}

std::string NameOf(const std::vector<CodeRange>& ranges) {
  std::string name = "characters";
  for (const auto& [first, last] : ranges) {
    absl::StrAppend(&name, " ", absl::Hex(first), "-", absl::Hex(last));
  }
  return name;
}

}  // namespace

Expression JsonCharacter(std::vector<CodeRange> ranges, RuleSet& rules) {
  ranges = Normalize(std::move(ranges));
  std::vector<CodeRange> plain = Plain(ranges);
  const bool single = ranges.size() == 1 && ranges[0].first == ranges[0].last;
  if (plain == ranges && (single || ranges.back().last <= kLastAscii)) {
    return Class(std::move(plain));
  }
  const std::string name = NameOf(ranges);
  if (rules.Find(name) >= 0) return rules.Call(name);
  std::vector<Expression> ways;
  if (!plain.empty()) ways.push_back(Class(std::move(plain)));
  for (const auto& [c, letter] : kShort) {
    if (Has(ranges, c)) ways.push_back(Text({'\\', letter}));
  }
  AddLongEscapes(ranges, ways);
  return RuleCall(rules.Add(name, Choice(std::move(ways))));
}

}  // namespace renga::grammar

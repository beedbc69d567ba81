#include "model/jinja/string_literal.h"

#include <algorithm>
#include <cstdint>

#include "absl/strings/ascii.h"
#include "model/unicode.h"

namespace renga::model::jinja {
namespace {

// Escapes of one letter and what they mean; the backslash before a line end means nothing.
constexpr absl::string_view kLetters = "abfnrtv\\'\"";
constexpr absl::string_view kMeanings = "\a\b\f\n\r\t\v\\'\"";

int DigitValue(char c) {
  if (c >= '0' && c <= '9') return c - '0';
  const char lower = absl::ascii_tolower(static_cast<unsigned char>(c));
  return lower >= 'a' && lower <= 'f' ? lower - 'a' + 10 : 16;
}

// Reads up to `most` digits of `base`; how many were there.
size_t ReadDigits(absl::string_view text, size_t most, int base, char32_t* value) {
  size_t n = 0;
  *value = 0;
  for (; n < std::min(most, text.size()) && DigitValue(text[n]) < base; ++n) {
    *value = *value * static_cast<char32_t>(base) + static_cast<char32_t>(DigitValue(text[n]));
  }
  return n;
}

// Reads a numeric escape after the backslash; how many bytes it takes, 0 when it is none.
size_t ReadNumeric(absl::string_view text, char32_t* value) {
  if (text[0] >= '0' && text[0] <= '7') return ReadDigits(text, 3, 8, value);
  const size_t digits = text[0] == 'x' ? 2 : text[0] == 'u' ? 4 : text[0] == 'U' ? 8 : 0;
  if (digits == 0 || ReadDigits(text.substr(1), digits, 16, value) != digits) return 0;
  return *value <= 0x10FFFF ? digits + 1 : 0;
}

}  // namespace

std::string UnescapeLiteral(absl::string_view literal) {
  std::string out;
  while (!literal.empty()) {
    const size_t slash = std::min(literal.find('\\'), literal.size());
    out.append(literal.data(), slash);
    literal.remove_prefix(slash);
    if (literal.size() < 2) {
      out.append(literal.data(), literal.size());
      break;
    }
    const absl::string_view escape = literal.substr(1);
    char32_t value = 0;
    const size_t letter = kLetters.find(escape[0]);
    if (letter != absl::string_view::npos) {
      out.push_back(kMeanings[letter]);
      literal.remove_prefix(2);
    } else if (escape[0] == '\n') {
      literal.remove_prefix(2);
    } else if (const size_t length = ReadNumeric(escape, &value); length > 0) {
      AppendUtf8(value, &out);
      literal.remove_prefix(1 + length);
    } else {
      out.push_back('\\');
      literal.remove_prefix(1);
    }
  }
  return out;
}

}  // namespace renga::model::jinja

#include "model/unicode.h"

#include <utf8proc.h>

#include <algorithm>
#include <vector>

namespace renga::model {
namespace {

constexpr char32_t kReplacementChar = 0xFFFD;
constexpr char32_t kLastCodePoint = 0x10FFFF;
// Below this no character combines with the one before it, nor changes under composition.
constexpr char32_t kFirstCombining = 0x300;

bool IsContinuation(char c) { return (static_cast<unsigned char>(c) & 0xC0) == 0x80; }

bool IsSpace(char32_t c) {
  // The characters with the White_Space property.
  return (c >= 0x09 && c <= 0x0D) || c == 0x20 || c == 0x85 || c == 0xA0 || c == 0x1680 ||
         (c >= 0x2000 && c <= 0x200A) || c == 0x2028 || c == 0x2029 || c == 0x202F || c == 0x205F ||
         c == 0x3000;
}

CharClass ClassifyAscii(char32_t c) {
  if ((c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z')) return CharClass::kLetter;
  if (c >= '0' && c <= '9') return CharClass::kNumber;
  return IsSpace(c) ? CharClass::kSpace : CharClass::kOther;
}

// The bytes of the sequence `text` starts with, or 0 when its continuation bytes are not there.
size_t CompleteLength(absl::string_view text) {
  const unsigned char lead = static_cast<unsigned char>(text[0]);
  if (lead < 0x80) return 1;
  if (lead < 0xC0 || lead >= 0xF8) return 0;
  const size_t length = static_cast<size_t>(AnnouncedUtf8Length(lead));
  if (length > text.size()) return 0;
  for (size_t i = 1; i < length; ++i) {
    if (!IsContinuation(text[i])) return 0;
  }
  return length;
}

int CombiningClass(int32_t code_point) {
  return static_cast<int>(utf8proc_get_property(code_point)->combining_class);
}

// Appends the full canonical decomposition of one character.
void Decompose(char32_t code_point, std::vector<int32_t>* out) {
  constexpr int kMaxDecomposition = 32;  // the longest canonical one has 4 characters
  int32_t buffer[kMaxDecomposition];
  int boundary = 0;
  const auto n = utf8proc_decompose_char(
      static_cast<int32_t>(code_point), buffer, kMaxDecomposition,
      static_cast<utf8proc_option_t>(UTF8PROC_STABLE | UTF8PROC_DECOMPOSE), &boundary);
  if (n <= 0 || n > kMaxDecomposition) {
    out->push_back(static_cast<int32_t>(code_point));
  } else {
    out->insert(out->end(), buffer, buffer + n);
  }
}

// Puts every run of combining marks in canonical order. utf8proc would do it by exchanging
// neighbours, which is quadratic on a hostile text.
void SortCombiningMarks(std::vector<int32_t>* points) {
  auto it = points->begin();
  while (it != points->end()) {
    if (CombiningClass(*it) == 0) {
      ++it;
      continue;
    }
    auto end = std::find_if(it, points->end(), [](int32_t c) { return CombiningClass(c) == 0; });
    std::stable_sort(it, end,
                     [](int32_t a, int32_t b) { return CombiningClass(a) < CombiningClass(b); });
    it = end;
  }
}

// Appends the composed form of `span`: characters that may interact with each other.
void AppendComposed(const std::vector<char32_t>& span, std::string* out) {
  if (span.size() == 1 && span[0] < kFirstCombining) {
    AppendUtf8(span[0], out);
    return;
  }
  std::vector<int32_t> points;
  points.reserve(span.size() * 2);
  for (char32_t c : span) Decompose(c, &points);
  SortCombiningMarks(&points);
  const auto n =
      utf8proc_normalize_utf32(points.data(), static_cast<utf8proc_ssize_t>(points.size()),
                               static_cast<utf8proc_option_t>(UTF8PROC_STABLE | UTF8PROC_COMPOSE));
  for (utf8proc_ssize_t i = 0; i < n; ++i) AppendUtf8(static_cast<char32_t>(points[i]), out);
}

}  // namespace

CharClass ClassifyChar(char32_t code_point) {
  if (code_point < 0x80) return ClassifyAscii(code_point);
  if (IsSpace(code_point)) return CharClass::kSpace;
  if (code_point > kLastCodePoint) return CharClass::kOther;
  switch (utf8proc_category(static_cast<int32_t>(code_point))) {
    case UTF8PROC_CATEGORY_LU:
    case UTF8PROC_CATEGORY_LL:
    case UTF8PROC_CATEGORY_LT:
    case UTF8PROC_CATEGORY_LM:
    case UTF8PROC_CATEGORY_LO:
      return CharClass::kLetter;
    case UTF8PROC_CATEGORY_ND:
    case UTF8PROC_CATEGORY_NL:
    case UTF8PROC_CATEGORY_NO:
      return CharClass::kNumber;
    default:
      return CharClass::kOther;
  }
}

int AnnouncedUtf8Length(unsigned char lead) {
  if (lead < 0xC0) return 1;
  if (lead < 0xE0) return 2;
  return lead < 0xF0 ? 3 : 4;
}

DecodedChar DecodeChar(absl::string_view text) {
  const size_t length = CompleteLength(text);
  if (length == 0) return {kReplacementChar, 1};
  if (length == 1) return {static_cast<unsigned char>(text[0]), 1};
  // A lead byte of n bytes carries 7 - n bits.
  char32_t code_point = static_cast<unsigned char>(text[0]) & (0x7F >> length);
  for (size_t i = 1; i < length; ++i) {
    code_point = code_point << 6 | (static_cast<unsigned char>(text[i]) & 0x3F);
  }
  if (code_point > kLastCodePoint) return {kReplacementChar, 1};
  return {code_point, length};
}

void AppendUtf8(char32_t c, std::string* out) {
  if (c < 0x80) {
    out->push_back(static_cast<char>(c));
    return;
  }
  if (c < 0x800) {
    out->push_back(static_cast<char>(0xC0 | c >> 6));
  } else if (c < 0x10000) {
    out->push_back(static_cast<char>(0xE0 | c >> 12));
    out->push_back(static_cast<char>(0x80 | (c >> 6 & 0x3F)));
  } else {
    out->push_back(static_cast<char>(0xF0 | c >> 18));
    out->push_back(static_cast<char>(0x80 | (c >> 12 & 0x3F)));
    out->push_back(static_cast<char>(0x80 | (c >> 6 & 0x3F)));
  }
  out->push_back(static_cast<char>(0x80 | (c & 0x3F)));
}

Utf8Unit InspectUtf8(absl::string_view text) {
  const unsigned char lead = static_cast<unsigned char>(text[0]);
  if (lead < 0x80) return {Utf8State::kWhole, 1};
  if (lead < 0xC2 || lead > 0xF4) return {Utf8State::kInvalid, 1};
  const size_t length = static_cast<size_t>(AnnouncedUtf8Length(lead));
  // The second byte's range is narrower after some first bytes: that is what keeps out overlong
  // forms (E0, F0), surrogates (ED) and what lies beyond U+10FFFF (F4).
  const unsigned char low = lead == 0xE0 ? 0xA0 : lead == 0xF0 ? 0x90 : 0x80;
  const unsigned char high = lead == 0xED ? 0x9F : lead == 0xF4 ? 0x8F : 0xBF;
  for (size_t i = 1; i < length; ++i) {
    if (i == text.size()) return {Utf8State::kIncomplete, i};
    const unsigned char c = static_cast<unsigned char>(text[i]);
    const bool fits = i == 1 ? c >= low && c <= high : IsContinuation(text[i]);
    if (!fits) return {Utf8State::kInvalid, i};
  }
  return {Utf8State::kWhole, length};
}

bool IsValidUtf8(absl::string_view text) {
  while (!text.empty()) {
    const Utf8Unit unit = InspectUtf8(text);
    if (unit.state != Utf8State::kWhole) return false;
    text.remove_prefix(unit.length);
  }
  return true;
}

std::string RepairUtf8(absl::string_view text) {
  std::string out;
  out.reserve(text.size());
  while (!text.empty()) {
    const DecodedChar c = DecodeChar(text);
    AppendUtf8(c.code_point, &out);
    text.remove_prefix(c.length);
  }
  return out;
}

std::string ComposeNfc(absl::string_view text) {
  // The first byte of U+0300 is 0xCC: text without such bytes is composed already.
  if (std::all_of(text.begin(), text.end(),
                  [](char c) { return static_cast<unsigned char>(c) < 0xCC; })) {
    return std::string(text);
  }
  std::string out;
  out.reserve(text.size());
  std::vector<char32_t> span;
  while (!text.empty()) {
    const DecodedChar c = DecodeChar(text);
    if (c.code_point < kFirstCombining && !span.empty()) {
      AppendComposed(span, &out);
      span.clear();
    }
    span.push_back(c.code_point);
    text.remove_prefix(c.length);
  }
  if (!span.empty()) AppendComposed(span, &out);
  return out;
}

}  // namespace renga::model

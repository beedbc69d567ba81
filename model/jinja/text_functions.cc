#include "model/jinja/text_functions.h"

#include <utf8proc.h>

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "model/unicode.h"

namespace renga::model::jinja {
namespace {

bool IsPythonSpace(char32_t c) {
  return (c >= 0x1C && c <= 0x1F) || ClassifyChar(c) == CharClass::kSpace;
}

// The last character of a non-empty text.
absl::string_view LastChar(absl::string_view text) {
  // A character has at most four bytes; the one that ends exactly here is the last.
  for (size_t length = std::min<size_t>(4, text.size()); length > 1; --length) {
    const absl::string_view tail = text.substr(text.size() - length);
    if (DecodeChar(tail).length == length) return tail;
  }
  return text.substr(text.size() - 1);
}

bool IsStripped(absl::string_view character, std::optional<absl::string_view> chars) {
  if (!chars.has_value()) return IsPythonSpace(DecodeChar(character).code_point);
  const std::vector<absl::string_view> set = SplitChars(*chars);
  return std::find(set.begin(), set.end(), character) != set.end();
}

template <typename Predicate>
bool AllChars(absl::string_view text, Predicate predicate) {
  if (text.empty()) return false;
  while (!text.empty()) {
    const DecodedChar c = DecodeChar(text);
    if (!predicate(c.code_point)) return false;
    text.remove_prefix(c.length);
  }
  return true;
}

// Changes case character by character; `upper` says what becomes of the next one, from whether
// the one before is a letter and whether it is the first.
template <typename Choice>
std::string MapCase(absl::string_view text, Choice upper) {
  std::string out;
  out.reserve(text.size());
  bool after_letter = false;
  for (bool first = true; !text.empty(); first = false) {
    const DecodedChar c = DecodeChar(text);
    const int32_t code = static_cast<int32_t>(c.code_point);
    if (c.length == 1 && c.code_point >= 0x80) {
      out.push_back(text[0]);  // not UTF-8: stays as it is
    } else {
      AppendUtf8(static_cast<char32_t>(upper(first, after_letter) ? utf8proc_toupper(code)
                                                                  : utf8proc_tolower(code)),
                 &out);
    }
    after_letter = ClassifyChar(c.code_point) == CharClass::kLetter;
    text.remove_prefix(c.length);
  }
  return out;
}

size_t SpaceRun(absl::string_view text) {
  return text.size() - StripText(text, std::nullopt, StripSide::kLeft).size();
}

std::vector<absl::string_view> SplitAtSpace(absl::string_view text, int64_t most) {
  std::vector<absl::string_view> parts;
  text.remove_prefix(SpaceRun(text));
  while (!text.empty()) {
    if (most >= 0 && static_cast<int64_t>(parts.size()) == most) {
      parts.push_back(StripText(text, std::nullopt, StripSide::kRight));
      break;
    }
    size_t end = 0;
    while (end < text.size()) {
      const DecodedChar c = DecodeChar(text.substr(end));
      if (IsPythonSpace(c.code_point)) break;
      end += c.length;
    }
    parts.push_back(text.substr(0, end));
    text.remove_prefix(end);
    text.remove_prefix(SpaceRun(text));
  }
  return parts;
}

std::vector<absl::string_view> SplitAtSpaceFromRight(absl::string_view text, int64_t most) {
  std::vector<absl::string_view> parts;
  text = StripText(text, std::nullopt, StripSide::kRight);
  while (!text.empty()) {
    if (most >= 0 && static_cast<int64_t>(parts.size()) == most) {
      parts.push_back(StripText(text, std::nullopt, StripSide::kLeft));
      break;
    }
    absl::string_view head = text;
    while (!head.empty() && !IsStripped(LastChar(head), std::nullopt)) {
      head.remove_suffix(LastChar(head).size());
    }
    parts.push_back(text.substr(head.size()));
    text = StripText(head, std::nullopt, StripSide::kRight);
  }
  std::reverse(parts.begin(), parts.end());
  return parts;
}

struct ResolvedSlice {
  int64_t start;  // inside the sequence, or where the walk ends at once
  int64_t stop;
  int64_t step;
};

ResolvedSlice Resolve(const SliceBounds& bounds, int64_t n) {
  const bool forward = bounds.step > 0;
  const int64_t lowest = forward ? 0 : -1;
  const int64_t highest = forward ? n : n - 1;
  // A negative bound counts from the end; then it is brought into the sequence.
  const auto resolve = [&](std::optional<int64_t> bound, int64_t absent) {
    if (!bound.has_value()) return absent;
    const int64_t position = *bound < 0 ? std::max(*bound, -n - 1) + n : *bound;
    return std::clamp(position, lowest, highest);
  };
  ResolvedSlice slice;
  slice.start = resolve(bounds.start, forward ? lowest : highest);
  slice.stop = resolve(bounds.stop, forward ? highest : lowest);
  // A larger step leaves the sequence at once too, and can't overflow.
  slice.step = std::clamp(bounds.step, -n - 1, n + 1);
  return slice;
}

// The byte where character number `index` starts; the end of the text beyond the last one.
size_t OffsetOf(absl::string_view text, int64_t index) {
  size_t offset = 0;
  for (; index > 0 && offset < text.size(); --index) {
    offset += DecodeChar(text.substr(offset)).length;
  }
  return offset;
}

}  // namespace

int64_t CountChars(absl::string_view text) {
  int64_t count = 0;
  for (; !text.empty(); ++count) text.remove_prefix(DecodeChar(text).length);
  return count;
}

std::vector<absl::string_view> SplitChars(absl::string_view text) {
  std::vector<absl::string_view> chars;
  while (!text.empty()) {
    const size_t length = DecodeChar(text).length;
    chars.push_back(text.substr(0, length));
    text.remove_prefix(length);
  }
  return chars;
}

absl::string_view StripText(absl::string_view text, std::optional<absl::string_view> chars,
                            StripSide side) {
  while (side != StripSide::kRight && !text.empty()) {
    const absl::string_view first = text.substr(0, DecodeChar(text).length);
    if (!IsStripped(first, chars)) break;
    text.remove_prefix(first.size());
  }
  while (side != StripSide::kLeft && !text.empty()) {
    const absl::string_view last = LastChar(text);
    if (!IsStripped(last, chars)) break;
    text.remove_suffix(last.size());
  }
  return text;
}

std::vector<absl::string_view> SplitText(absl::string_view text,
                                         std::optional<absl::string_view> separator, int64_t most) {
  if (!separator.has_value()) return SplitAtSpace(text, most);
  std::vector<absl::string_view> parts;
  while (most < 0 || static_cast<int64_t>(parts.size()) < most) {
    const size_t at = text.find(*separator);
    if (at == absl::string_view::npos) break;
    parts.push_back(text.substr(0, at));
    text.remove_prefix(at + separator->size());
  }
  parts.push_back(text);
  return parts;
}

std::vector<absl::string_view> SplitTextFromRight(absl::string_view text,
                                                  std::optional<absl::string_view> separator,
                                                  int64_t most) {
  if (!separator.has_value()) return SplitAtSpaceFromRight(text, most);
  std::vector<absl::string_view> parts;
  while (most < 0 || static_cast<int64_t>(parts.size()) < most) {
    const size_t at = text.rfind(*separator);
    if (at == absl::string_view::npos) break;
    parts.push_back(text.substr(at + separator->size()));
    text = text.substr(0, at);
  }
  parts.push_back(text);
  std::reverse(parts.begin(), parts.end());
  return parts;
}

std::vector<absl::string_view> SplitLines(absl::string_view text) {
  std::vector<absl::string_view> lines;
  while (!text.empty()) {
    const size_t end = std::min(text.find_first_of("\r\n"), text.size());
    lines.push_back(text.substr(0, end));
    const bool crlf = text.substr(end, 2) == "\r\n";
    text.remove_prefix(std::min(end + (crlf ? 2 : 1), text.size()));
  }
  return lines;
}

std::string ReplaceText(absl::string_view text, absl::string_view from, absl::string_view to,
                        int64_t most) {
  std::string out;
  // An empty `from` stands before every character and at the end, as in Python.
  for (int64_t count = 0; most < 0 || count < most; ++count) {
    const size_t at = text.find(from);
    if (at == absl::string_view::npos) break;
    absl::StrAppend(&out, text.substr(0, at), to);
    text.remove_prefix(at + from.size());
    if (!from.empty()) continue;
    if (text.empty()) return out;
    const size_t length = DecodeChar(text).length;
    absl::StrAppend(&out, text.substr(0, length));
    text.remove_prefix(length);
  }
  absl::StrAppend(&out, text);
  return out;
}

std::string UpperText(absl::string_view text) {
  return MapCase(text, [](bool, bool) { return true; });
}

std::string LowerText(absl::string_view text) {
  return MapCase(text, [](bool, bool) { return false; });
}

std::string CapitalizeText(absl::string_view text) {
  return MapCase(text, [](bool first, bool) { return first; });
}

std::string TitleText(absl::string_view text) {
  return MapCase(text, [](bool, bool after_letter) { return !after_letter; });
}

int64_t FindText(absl::string_view text, absl::string_view needle, bool last) {
  const size_t at = last ? text.rfind(needle) : text.find(needle);
  return at == absl::string_view::npos ? -1 : CountChars(text.substr(0, at));
}

bool IsAllSpace(absl::string_view text) { return AllChars(text, IsPythonSpace); }

bool IsAllDigits(absl::string_view text) {
  return AllChars(text, [](char32_t c) {
    return c < 0x80 ? c >= '0' && c <= '9'
                    : utf8proc_category(static_cast<int32_t>(c)) == UTF8PROC_CATEGORY_ND;
  });
}

bool IsAllLetters(absl::string_view text) {
  return AllChars(text, [](char32_t c) { return ClassifyChar(c) == CharClass::kLetter; });
}

std::vector<size_t> SliceIndices(const SliceBounds& bounds, size_t size) {
  const ResolvedSlice slice = Resolve(bounds, static_cast<int64_t>(size));
  std::vector<size_t> indices;
  for (int64_t i = slice.start; slice.step > 0 ? i < slice.stop : i > slice.stop; i += slice.step) {
    indices.push_back(static_cast<size_t>(i));
  }
  return indices;
}

std::string SliceText(absl::string_view text, const SliceBounds& bounds) {
  const int64_t count = CountChars(text);
  if (bounds.step == 1) {
    const ResolvedSlice slice = Resolve(bounds, count);
    const size_t begin = OffsetOf(text, slice.start);
    return std::string(
        text.substr(begin, OffsetOf(text, std::max(slice.start, slice.stop)) - begin));
  }
  const std::vector<absl::string_view> chars = SplitChars(text);
  std::string out;
  for (size_t index : SliceIndices(bounds, chars.size())) absl::StrAppend(&out, chars[index]);
  return out;
}

}  // namespace renga::model::jinja

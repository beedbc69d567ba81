#include "model/pre_tokenizer.h"

#include <algorithm>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "model/unicode.h"

namespace renga::model {
namespace {

// A read-only view of the text as classified characters.
class Scanner {
 public:
  struct Char {
    char32_t code_point = 0;
    CharClass char_class = CharClass::kSpace;
    size_t end = 0;    // where the next character starts
    bool none = true;  // past the end of the text; belongs to no class

    bool Is(CharClass wanted) const { return !none && char_class == wanted; }
    bool Is(char wanted) const { return !none && code_point == static_cast<char32_t>(wanted); }
    bool IsLineEnd() const { return Is('\n') || Is('\r'); }
  };

  explicit Scanner(absl::string_view text) : text_(text) {}

  Char At(size_t position) const {
    if (position >= text_.size()) return Char{.end = text_.size()};
    const DecodedChar c = DecodeChar(text_.substr(position));
    return Char{c.code_point, ClassifyChar(c.code_point), position + c.length, false};
  }

  // The end of the run of `char_class` that starts at `position`, at most `limit` characters long.
  size_t RunEnd(size_t position, CharClass char_class, size_t limit = SIZE_MAX) const {
    for (size_t n = 0; n < limit; ++n) {
      const Char c = At(position);
      if (!c.Is(char_class)) break;
      position = c.end;
    }
    return position;
  }

 private:
  const absl::string_view text_;
};

using Char = Scanner::Char;

// Lower case of an ASCII letter, and of the long s, which is an s where case does not count.
char32_t FoldLetter(char32_t c) {
  if (c == 0x17F) return 's';
  return c >= 'A' && c <= 'Z' ? c - 'A' + 'a' : c;
}

// The end of 's 't 're 've 'm 'll 'd at `position`, or `position` when there is none.
size_t ContractionEnd(const Scanner& scanner, size_t position, bool ignore_case) {
  const Char quote = scanner.At(position);
  if (!quote.Is('\'')) return position;
  const Char first = scanner.At(quote.end);
  if (first.none) return position;
  const char32_t a = ignore_case ? FoldLetter(first.code_point) : first.code_point;
  if (a == 's' || a == 't' || a == 'm' || a == 'd') return first.end;
  const Char second = scanner.At(first.end);
  if (second.none) return position;
  const char32_t b = ignore_case ? FoldLetter(second.code_point) : second.code_point;
  const bool two = ((a == 'r' || a == 'v') && b == 'e') || (a == 'l' && b == 'l');
  return two ? second.end : position;
}

// \s+(?!\S)|\s+ for the white space that starts at `position`: all of it at the end of the text,
// else all but its last character, which belongs to the next word.
size_t SpaceEnd(const Scanner& scanner, size_t position, size_t text_size) {
  size_t previous = position;
  size_t end = position;
  for (Char c = scanner.At(position); c.Is(CharClass::kSpace); c = scanner.At(end)) {
    previous = end;
    end = c.end;
  }
  return end == text_size || previous == position ? end : previous;
}

// 's|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+
size_t Gpt2WordEnd(const Scanner& scanner, size_t position, size_t text_size) {
  const size_t contraction = ContractionEnd(scanner, position, /*ignore_case=*/false);
  if (contraction != position) return contraction;
  const Char first = scanner.At(position);
  const Char body = first.Is(' ') ? scanner.At(first.end) : first;
  if (!body.none && !body.Is(CharClass::kSpace)) {
    return scanner.RunEnd(body.end, body.char_class);
  }
  return SpaceEnd(scanner, position, text_size);
}

// The end of the last line end in the white space at `position`, or `position` without one.
size_t LineEndsEnd(const Scanner& scanner, size_t position) {
  size_t result = position;
  for (Char c = scanner.At(position); c.Is(CharClass::kSpace); c = scanner.At(c.end)) {
    if (c.IsLineEnd()) result = c.end;
  }
  return result;
}

// (?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,max}| ?[^\s\p{L}\p{N}]+[\r\n]*|
// \s*[\r\n]+|\s+(?!\S)|\s+
size_t Llama3WordEnd(const Scanner& scanner, size_t position, size_t text_size,
                     size_t max_numbers) {
  const size_t contraction = ContractionEnd(scanner, position, /*ignore_case=*/true);
  if (contraction != position) return contraction;
  const Char first = scanner.At(position);
  if (first.Is(CharClass::kLetter)) return scanner.RunEnd(first.end, CharClass::kLetter);
  if (first.Is(CharClass::kNumber)) {
    return scanner.RunEnd(position, CharClass::kNumber, max_numbers);
  }
  const Char second = scanner.At(first.end);
  if (!first.IsLineEnd() && second.Is(CharClass::kLetter)) {
    return scanner.RunEnd(second.end, CharClass::kLetter);
  }
  const Char body = first.Is(' ') ? second : first;
  if (body.Is(CharClass::kOther)) {
    size_t end = scanner.RunEnd(body.end, CharClass::kOther);
    for (Char c = scanner.At(end); c.IsLineEnd(); c = scanner.At(end)) end = c.end;
    return end;
  }
  const size_t line_ends = LineEndsEnd(scanner, position);
  return line_ends != position ? line_ends : SpaceEnd(scanner, position, text_size);
}

// Where the next number character starts, at or after `position`.
size_t NextNumber(const Scanner& scanner, size_t position, size_t text_size) {
  while (position < text_size) {
    const Char c = scanner.At(position);
    if (c.Is(CharClass::kNumber)) break;
    position = c.end;
  }
  return position;
}

struct NamedPreTokenizer {
  absl::string_view name;
  PreTokenizer rules;
};

constexpr PreTokenizer kLlama3Rules{
    .pattern = SplitPattern::kLlama3, .ignore_merges = true, .adds_bos = true};

constexpr NamedPreTokenizer kPreTokenizers[] = {
    {"gpt-2", {.pattern = SplitPattern::kGpt2}},
    {"llama-bpe", kLlama3Rules},
    {"llama3", kLlama3Rules},
    {"llama-v3", kLlama3Rules},
    {"qwen2", {.pattern = SplitPattern::kQwen2, .compose_nfc = true}},
    {"smollm", {.pattern = SplitPattern::kSmolLm}},
};

}  // namespace

absl::StatusOr<PreTokenizer> FindPreTokenizer(const std::optional<std::string>& name) {
  if (!name.has_value()) return PreTokenizer{.pattern = SplitPattern::kGpt2, .compose_nfc = true};
  std::string known;
  for (const NamedPreTokenizer& row : kPreTokenizers) {
    if (row.name == *name) return row.rules;
    absl::StrAppend(&known, known.empty() ? "" : ", ", row.name);
  }
  return absl::UnimplementedError(absl::StrCat("the pre-tokenizer \"", name->substr(0, 64),
                                               "\" (tokenizer.ggml.pre) is not known; known are ",
                                               known));
}

bool WordSplitter::Next(absl::string_view* word) {
  if (position_ >= text_.size()) return false;
  const size_t end = WordEnd();
  *word = text_.substr(position_, end - position_);
  position_ = end;
  return true;
}

size_t WordSplitter::WordEnd() {
  const Scanner scanner(text_);
  switch (pattern_) {
    case SplitPattern::kGpt2:
      return Gpt2WordEnd(scanner, position_, text_.size());
    case SplitPattern::kLlama3:
      return Llama3WordEnd(scanner, position_, text_.size(), 3);
    case SplitPattern::kQwen2:
      return Llama3WordEnd(scanner, position_, text_.size(), 1);
    case SplitPattern::kSmolLm:
      break;
  }
  if (position_ == segment_end_) {
    segment_end_ = NextNumber(scanner, position_, text_.size());
    if (segment_end_ == position_) return segment_end_ = scanner.At(position_).end;
  }
  return Gpt2WordEnd(Scanner(text_.substr(0, segment_end_)), position_, segment_end_);
}

}  // namespace renga::model

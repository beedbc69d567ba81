// The Unicode knowledge tokenizers need: reading and repairing UTF-8, the classes that splitting
// patterns ask for, and canonical composition (NFC). Tables are libutf8proc's.
#ifndef RENGA_MODEL_UNICODE_H_
#define RENGA_MODEL_UNICODE_H_

#include <cstddef>
#include <cstdint>
#include <string>

#include "absl/strings/string_view.h"

namespace renga::model {

// The classes of the patterns: \p{L}, \p{N}, \s, and the rest. A character has exactly one.
enum class CharClass : uint8_t { kLetter, kNumber, kSpace, kOther };
CharClass ClassifyChar(char32_t code_point);

// How many bytes a character with this first byte takes, from the first byte alone; 1 for bytes
// that cannot start a character. Never 0.
int AnnouncedUtf8Length(unsigned char lead);

// The first character of a non-empty text, without checks beyond the end of the text: for text
// that went through RepairUtf8.
struct DecodedChar {
  char32_t code_point;
  size_t length;  // bytes, at least 1
};
DecodedChar DecodeChar(absl::string_view text);

void AppendUtf8(char32_t code_point, std::string* out);

// What stands at the start of a non-empty text, by the strict rules of Unicode (no surrogates, no
// overlong forms).
enum class Utf8State { kWhole, kIncomplete, kInvalid };
struct Utf8Unit {
  Utf8State state;
  size_t length;  // bytes of the character, of its beginning so far, or of what must be replaced
};
Utf8Unit InspectUtf8(absl::string_view text);

bool IsValidUtf8(absl::string_view text);

// Makes any bytes decodable, the way byte-level BPE vocabularies expect it (no standard says how):
// a byte that starts no complete sequence becomes U+FFFD, overlong forms become the character they
// spell, and surrogates stay.
std::string RepairUtf8(absl::string_view text);

// Canonical composition (NFC) of decodable text, in time O(n log n) whatever the combining marks.
std::string ComposeNfc(absl::string_view text);

}  // namespace renga::model

#endif  // RENGA_MODEL_UNICODE_H_

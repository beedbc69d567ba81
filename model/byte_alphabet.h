// GPT-2's way of writing bytes as printable characters: the 188 printable ones of Latin-1 stand for
// themselves, the other 68 bytes, in order, for U+0100 and the characters after it.
#ifndef RENGA_MODEL_BYTE_ALPHABET_H_
#define RENGA_MODEL_BYTE_ALPHABET_H_

#include <string>

#include "absl/strings/string_view.h"

namespace renga::model {

// Appends the bytes that `text` spells. False, with some of them appended, when a character is not
// of the alphabet.
bool AppendSpelledBytes(absl::string_view text, std::string* out);

}  // namespace renga::model

#endif  // RENGA_MODEL_BYTE_ALPHABET_H_

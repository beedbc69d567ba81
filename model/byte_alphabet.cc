#include "model/byte_alphabet.h"

#include <array>
#include <cstdint>

#include "model/unicode.h"

namespace renga::model {
namespace {

constexpr int kAlphabetEnd = 0x100 + 68;

constexpr bool StandsForItself(int c) {
  return (c >= 0x21 && c <= 0x7E) || (c >= 0xA1 && c <= 0xFF && c != 0xAD);
}

// Character to byte, -1 where there is none.
constexpr std::array<int16_t, kAlphabetEnd> MakeAlphabet() {
  std::array<int16_t, kAlphabetEnd> bytes{};
  int next = 0x100;
  for (int b = 0; b < 0x100; ++b) {
    bytes[static_cast<size_t>(b)] = -1;
    if (StandsForItself(b)) {
      bytes[static_cast<size_t>(b)] = static_cast<int16_t>(b);
    } else {
      bytes[static_cast<size_t>(next++)] = static_cast<int16_t>(b);
    }
  }
  return bytes;
}

constexpr std::array<int16_t, kAlphabetEnd> kByteOf = MakeAlphabet();
static_assert(kByteOf[0x120] == ' ', "the space is written as U+0120");

}  // namespace

bool AppendSpelledBytes(absl::string_view text, std::string* out) {
  while (!text.empty()) {
    const DecodedChar c = DecodeChar(text);
    if (c.code_point >= kAlphabetEnd || kByteOf[c.code_point] < 0) return false;
    out->push_back(static_cast<char>(kByteOf[c.code_point]));
    text.remove_prefix(c.length);
  }
  return true;
}

}  // namespace renga::model

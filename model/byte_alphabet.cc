#include "model/byte_alphabet.h"

#include <array>
#include <cstdint>

namespace renga::model {
namespace {

constexpr uint32_t kAlphabetEnd = 0x100 + 68;

constexpr bool StandsForItself(int c) {
  return (c >= 0x21 && c <= 0x7E) || (c >= 0xA1 && c <= 0xFF && c != 0xAD);
}

// Character to byte, -1 where there is none.
constexpr std::array<int16_t, kAlphabetEnd> MakeAlphabet() {
  std::array<int16_t, kAlphabetEnd> bytes{};
  size_t next = 0x100;
  for (int b = 0; b < 0x100; ++b) {
    bytes[static_cast<size_t>(b)] = -1;
    if (StandsForItself(b)) {
      bytes[static_cast<size_t>(b)] = static_cast<int16_t>(b);
    } else {
      bytes[next++] = static_cast<int16_t>(b);
    }
  }
  return bytes;
}

constexpr std::array<int16_t, kAlphabetEnd> kByteOf = MakeAlphabet();
static_assert(kByteOf[0x120] == ' ', "the space is written as U+0120");

}  // namespace

// Runs for every merge of a vocabulary while a user waits, hence no DecodeChar and no push_back:
// the alphabet has characters of one and of two bytes only.
bool AppendSpelledBytes(absl::string_view text, std::string* out) {
  const size_t old_size = out->size();
  out->resize(old_size + text.size());
  char* to = out->data() + old_size;
  bool spelled = true;
  for (size_t i = 0; i < text.size() && spelled; ++i) {
    uint32_t c = static_cast<unsigned char>(text[i]);
    if (c >= 0x80) {
      const uint32_t next = i + 1 < text.size() ? static_cast<unsigned char>(text[i + 1]) : 0;
      const bool two_bytes = (c & 0xE0) == 0xC0 && (next & 0xC0) == 0x80;
      c = two_bytes ? (c & 0x1F) << 6 | (next & 0x3F) : kAlphabetEnd;
      ++i;
    }
    spelled = c < kAlphabetEnd && kByteOf[c] >= 0;
    if (spelled) *to++ = static_cast<char>(kByteOf[c]);
  }
  out->resize(static_cast<size_t>(to - out->data()));
  return spelled;
}

}  // namespace renga::model

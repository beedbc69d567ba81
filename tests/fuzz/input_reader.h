// Takes a fuzzer's bytes apart from the front. Past the end everything is zero or empty, so that
// every input means something and cutting one changes only what lay behind the cut.
#ifndef RENGA_TESTS_FUZZ_INPUT_READER_H_
#define RENGA_TESTS_FUZZ_INPUT_READER_H_

#include <algorithm>
#include <cstdint>

#include "absl/strings/string_view.h"

namespace renga::fuzz {

class InputReader {
 public:
  explicit InputReader(absl::string_view input) : rest_(input) {}

  bool empty() const { return rest_.empty(); }
  uint8_t Byte() {
    const absl::string_view byte = Text(1);
    return byte.empty() ? 0 : static_cast<uint8_t>(byte[0]);
  }
  // 16 bits, low byte first.
  uint16_t Number() {
    const uint8_t low = Byte();
    return static_cast<uint16_t>(low | Byte() << 8);
  }
  // Up to `size` bytes.
  absl::string_view Text(size_t size) {
    const absl::string_view text = rest_.substr(0, std::min(size, rest_.size()));
    rest_.remove_prefix(text.size());
    return text;
  }
  absl::string_view Rest() { return Text(rest_.size()); }

 private:
  absl::string_view rest_;
};

}  // namespace renga::fuzz

#endif  // RENGA_TESTS_FUZZ_INPUT_READER_H_

#include "coordinator/serving/grammar/utf8_ranges.h"

#include <algorithm>
#include <string>

#include "model/unicode.h"

namespace renga::grammar {
namespace {

// Characters from one of these to before the next take the same number of bytes.
constexpr char32_t kLengthStarts[] = {0, 0x80, 0x800, 0x10000, kLastCodePoint + 1};

// `first` and `last` have equally many bytes. Where they differ before their last `free`
// continuation bytes, these must be able to be anything; if not, the range is cut there.
void Cut(char32_t first, char32_t last, std::vector<ByteSequence>& out) {
  for (int free = 3; free >= 1; --free) {
    const char32_t mask = (char32_t{1} << (6 * free)) - 1;
    if ((first & ~mask) == (last & ~mask)) continue;
    if ((first & mask) != 0) {
      Cut(first, first | mask, out);
      return Cut((first | mask) + 1, last, out);
    }
    if ((last & mask) != mask) {
      Cut(first, (last & ~mask) - 1, out);
      return Cut(last & ~mask, last, out);
    }
  }
  std::string low;
  std::string high;
  model::AppendUtf8(first, &low);
  model::AppendUtf8(last, &high);
  ByteSequence& sequence = out.emplace_back();
  for (size_t i = 0; i < low.size(); ++i) {
    sequence.push_back({static_cast<uint8_t>(low[i]), static_cast<uint8_t>(high[i])});
  }
}

}  // namespace

std::vector<ByteSequence> Utf8Sequences(const CodeRange& range) {
  std::vector<ByteSequence> sequences;
  for (size_t length = 0; length + 1 < std::size(kLengthStarts); ++length) {
    const char32_t first = std::max(range.first, kLengthStarts[length]);
    const char32_t last = std::min<char32_t>(range.last, kLengthStarts[length + 1] - 1);
    if (first <= last) Cut(first, last, sequences);
  }
  return sequences;
}

}  // namespace renga::grammar

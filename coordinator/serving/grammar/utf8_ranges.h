// Ranges of characters as ranges of bytes.
#ifndef RENGA_COORDINATOR_SERVING_GRAMMAR_UTF8_RANGES_H_
#define RENGA_COORDINATOR_SERVING_GRAMMAR_UTF8_RANGES_H_

#include <cstdint>
#include <vector>

#include "coordinator/serving/grammar/expression.h"

namespace renga::grammar {

struct ByteRange {
  uint8_t first = 0;
  uint8_t last = 0;
  friend bool operator==(const ByteRange&, const ByteRange&) = default;
};

// One byte out of each range, one after the other.
using ByteSequence = std::vector<ByteRange>;

// The UTF-8 forms of the range's characters are exactly what these sequences describe, each of
// them once. `range` is one of Normalize.
std::vector<ByteSequence> Utf8Sequences(const CodeRange& range);

}  // namespace renga::grammar

#endif  // RENGA_COORDINATOR_SERVING_GRAMMAR_UTF8_RANGES_H_

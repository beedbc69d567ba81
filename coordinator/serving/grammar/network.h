// A grammar as it is walked: one small network for each rule. Between two nodes of a network lies
// a range of bytes, nothing, or a whole other rule (a recursive transition network: Woods 1970,
// "Transition network grammars for natural language analysis"). Characters were made bytes, so
// that a token may end in the middle of one.
#ifndef RENGA_COORDINATOR_SERVING_GRAMMAR_NETWORK_H_
#define RENGA_COORDINATOR_SERVING_GRAMMAR_NETWORK_H_

#include <cstdint>
#include <memory>
#include <vector>

#include "absl/status/statusor.h"
#include "coordinator/serving/grammar/expression.h"
#include "coordinator/serving/grammar/utf8_ranges.h"

namespace renga::grammar {

// Nodes of all networks together; what is written with large repetition counts reaches it.
inline constexpr int64_t kMaxNodes = 1 << 16;
inline constexpr int64_t kMaxEdges = 1 << 18;
inline constexpr int64_t kMaxRules = 4096;
// Of the trees that Compile walks by recursion.
inline constexpr int kMaxExpressionDepth = 256;

struct ByteEdge {
  ByteRange bytes;
  int32_t to = 0;
};

struct CallEdge {
  int32_t rule = 0;
  int32_t to = 0;  // once the rule is done
};

struct Node {
  std::vector<ByteEdge> bytes;
  std::vector<CallEdge> calls;
  std::vector<int32_t> free;  // nodes that may be gone on to at once
  bool end = false;           // the rule may be done here
  bool only_end = false;      // being here is the same as being done with the rule
};

// Immutable. No rule can call itself before a byte was read, and every rule has a text: so walking
// it always comes to an end, and from everywhere there is a way to the end of the root.
struct Network {
  std::vector<Node> nodes;
  std::vector<int32_t> starts;  // by rule
  int32_t root = 0;             // a rule
};

// kInvalidArgument with one sentence: a limit above is exceeded, a rule is left recursive, can
// never end, or names one that is not there (which parsers have excluded).
absl::StatusOr<std::shared_ptr<const Network>> Compile(const RuleSet& rules);

}  // namespace renga::grammar

#endif  // RENGA_COORDINATOR_SERVING_GRAMMAR_NETWORK_H_

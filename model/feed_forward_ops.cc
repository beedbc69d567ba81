#include "model/feed_forward_ops.h"

#include <algorithm>
#include <vector>

#include "base/status_macros.h"

namespace renga::model {

absl::StatusOr<OpRange> FindFeedForward(const LayerProgram& program) {
  std::vector<size_t> adds;  // to the residual stream
  for (size_t i = 0; i < program.ops.size(); ++i) {
    if (program.ops[i].kind == OpKind::kAdd && program.ops[i].out == 0) adds.push_back(i);
  }
  // One of attention and one of the feed-forward; what a later op reads would be missed.
  if (adds.size() != 2 || adds.back() + 1 != program.ops.size()) {
    return absl::UnimplementedError(
        "this family's layers do not end with a feed-forward that can be left out");
  }
  return OpRange{.begin = adds[0] + 1, .end = adds[1] + 1};
}

absl::StatusOr<OpRange> OpsOfLayer(const LayerProgram& program, const Approximation& approximation,
                                   int64_t layer) {
  if (!approximation.leaves_out_parts()) return OpRange{.begin = 0, .end = program.ops.size()};
  RENGA_ASSIGN_OR_RETURN(const OpRange feed_forward, FindFeedForward(program));
  const auto has = [layer](const LayerSet& layers) {
    return std::binary_search(layers.begin(), layers.end(), layer);
  };
  return OpRange{
      .begin = has(approximation.without_attention) ? feed_forward.begin : 0,
      .end = has(approximation.without_feed_forward) ? feed_forward.begin : feed_forward.end};
}

bool ReadsTensor(const LayerProgram& program, const OpRange& range, size_t tensor) {
  for (size_t i = range.begin; i < range.end; ++i) {
    if (ReadsTensor(program, program.ops[i], tensor)) return true;
  }
  return false;
}

}  // namespace renga::model

#include "model/feed_forward_ops.h"

#include <vector>

namespace renga::model {

absl::StatusOr<FeedForwardOps> FindFeedForward(const LayerProgram& program) {
  std::vector<size_t> adds;  // to the residual stream
  for (size_t i = 0; i < program.ops.size(); ++i) {
    if (program.ops[i].kind == OpKind::kAdd && program.ops[i].out == 0) adds.push_back(i);
  }
  // One of attention and one of the feed-forward; what a later op reads would be missed.
  if (adds.size() != 2 || adds.back() + 1 != program.ops.size()) {
    return absl::UnimplementedError(
        "this family's layers do not end with a feed-forward that can be left out");
  }
  return FeedForwardOps{.begin = adds[0] + 1, .end = adds[1] + 1};
}

}  // namespace renga::model

// Where in a layer's program its feed-forward is: what a step can go without, since all that it
// does is to add something to the residual stream.
#ifndef RENGA_MODEL_FEED_FORWARD_OPS_H_
#define RENGA_MODEL_FEED_FORWARD_OPS_H_

#include <cstddef>

#include "absl/status/statusor.h"
#include "model/architecture.h"

namespace renga::model {

// From the first op behind what attention adds to the residual stream to the layer's last one,
// which adds what the feed-forward gives.
struct FeedForwardOps {
  size_t begin = 0;  // in LayerProgram::ops
  size_t end = 0;
};

// kUnimplemented for a layer that does not end with such a feed-forward.
absl::StatusOr<FeedForwardOps> FindFeedForward(const LayerProgram& program);

}  // namespace renga::model

#endif  // RENGA_MODEL_FEED_FORWARD_OPS_H_

// Where in a layer's program its feed-forward is: what a step can go without, since all that it
// does is to add something to the residual stream.
#ifndef RENGA_MODEL_FEED_FORWARD_OPS_H_
#define RENGA_MODEL_FEED_FORWARD_OPS_H_

#include <cstddef>

#include "absl/status/statusor.h"
#include "model/approximation.h"
#include "model/architecture.h"

namespace renga::model {

// Ops that stand side by side, by their index in LayerProgram::ops.
struct OpRange {
  size_t begin = 0;
  size_t end = 0;
  bool contains(size_t op) const { return op >= begin && op < end; }
};

// From the first op behind what attention adds to the residual stream to the layer's last one,
// which adds what the feed-forward gives. kUnimplemented for a layer that does not end with such a
// feed-forward.
absl::StatusOr<OpRange> FindFeedForward(const LayerProgram& program);

// What a layer computes, without the parts that `approximation` leaves out of it. kUnimplemented
// where it leaves out parts, and this family's layers have no such parts.
absl::StatusOr<OpRange> OpsOfLayer(const LayerProgram& program, const Approximation& approximation,
                                   int64_t layer);

// Whether one of the ops in `range` reads the layer's tensor with the index `tensor`.
bool ReadsTensor(const LayerProgram& program, const OpRange& range, size_t tensor);

}  // namespace renga::model

#endif  // RENGA_MODEL_FEED_FORWARD_OPS_H_

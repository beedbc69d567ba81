// A layer a slice of whose feed-forward comes one layer late: its neurons read what they always
// read, but the next layer begins without what they add, which joins the residual stream when that
// layer's own feed-forward does. It is what a far worker that holds the slice would allow: nobody
// waits for it.
//
// Where a family norms the feed-forward's output, the layer adds the norm of the part that is
// there, and one layer later what is missing to the norm of the whole.
#ifndef RENGA_MODEL_LATE_PROGRAM_H_
#define RENGA_MODEL_LATE_PROGRAM_H_

#include <cstdint>
#include <vector>

#include "absl/status/statusor.h"
#include "model/architecture.h"
#include "model/shard_spec.h"

namespace renga::model {

// The last feed-forward columns of a layer, about `percent` of them: whole blocks of every format,
// at least one.
Range LateColumns(const ModelConfig& config, int64_t percent);

struct LateProgram {
  // Ops name the layer's tensors by their index; of those that are cut by feed-forward columns that
  // is the early part.
  LayerProgram program;
  // What indices from the number of tensors on name.
  struct Part {
    int tensor = -1;
    bool negated = false;  // a vector, all of it, with its sign changed; else the late part
  };
  std::vector<Part> added;
  Range early;  // feed-forward columns
  Range late;
  int pending = -1;  // the buffer with what a layer leaves to be added
};

// `percent` is 1 to 100. kUnimplemented for a layer that is not built of one feed-forward at its
// end.
absl::StatusOr<LateProgram> MakeLateProgram(const Model& model, int64_t percent);

}  // namespace renga::model

#endif  // RENGA_MODEL_LATE_PROGRAM_H_

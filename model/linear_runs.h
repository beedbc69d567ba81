// Which matrices of a layer are multiplied in one call: what must be in memory at the same time.
#ifndef RENGA_MODEL_LINEAR_RUNS_H_
#define RENGA_MODEL_LINEAR_RUNS_H_

#include <cstddef>
#include <span>
#include <vector>

#include "model/architecture.h"

namespace renga::model {

// How many ops from `ops[0]` on, all kLinear, read one input and may run as one call: none of them
// writes what they read. 0 when ops[0] is another op.
size_t LinearRun(std::span<const Op> ops);

// The first op and the number of ops of each such call of a layer, in the program's order.
struct LinearCall {
  size_t first = 0;  // in LayerProgram::ops
  size_t count = 0;
};
std::vector<LinearCall> LinearCalls(const LayerProgram& program);

}  // namespace renga::model

#endif  // RENGA_MODEL_LINEAR_RUNS_H_

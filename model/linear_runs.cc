#include "model/linear_runs.h"

#include <algorithm>

namespace renga::model {

size_t LinearRun(std::span<const Op> ops) {
  size_t count = 0;
  while (count < ops.size() && ops[count].kind == OpKind::kLinear && ops[count].in == ops[0].in &&
         ops[count].out != ops[0].in) {
    ++count;
  }
  return count;
}

std::vector<LinearCall> LinearCalls(const LayerProgram& program) {
  std::vector<LinearCall> calls;
  const std::span<const Op> ops = program.ops;
  for (size_t i = 0; i < ops.size();) {
    const size_t count = LinearRun(ops.subspan(i));
    if (count > 0) calls.push_back({.first = i, .count = count});
    i += std::max<size_t>(count, 1);
  }
  return calls;
}

}  // namespace renga::model

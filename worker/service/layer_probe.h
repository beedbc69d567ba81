// What a layer takes whatever its weights: launches, barriers, norms, a short attention.
#ifndef RENGA_WORKER_SERVICE_LAYER_PROBE_H_
#define RENGA_WORKER_SERVICE_LAYER_PROBE_H_

#include <functional>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "worker/engine/memory_budget.h"
#include "worker/kernels/backend.h"

namespace renga::worker {

// Microseconds of one layer, of which nothing is weights to speak of, in a step of one token: an
// ordinary run of some. Blocks for about `duration`; frees what it used. 0 where the budget has no
// room for so small a model, or the backend no products of its format; kCancelled when `give_way`
// (may be empty; asked between steps) says so; other errors are the device's.
absl::StatusOr<double> MeasureLayer(kernels::Backend& backend, engine::MemoryBudget& budget,
                                    absl::Duration duration,
                                    const std::function<bool()>& give_way = {});

}  // namespace renga::worker

#endif  // RENGA_WORKER_SERVICE_LAYER_PROBE_H_

// How fast this device reads weights when it decodes: what the first planner divides layers by.
#ifndef RENGA_WORKER_SERVICE_SPEED_PROBE_H_
#define RENGA_WORKER_SERVICE_SPEED_PROBE_H_

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "worker/engine/memory_budget.h"
#include "worker/kernels/backend.h"

namespace renga::worker {

// Weight bytes per second of a one-row Linear over a matrix larger than the caches (64 MiB, but at
// most a quarter of the budget), repeated for about `duration`. Blocks; frees what it used.
absl::StatusOr<double> MeasureWeightSpeed(kernels::Backend& backend, engine::MemoryBudget& budget,
                                          absl::Duration duration = absl::Milliseconds(150));

}  // namespace renga::worker

#endif  // RENGA_WORKER_SERVICE_SPEED_PROBE_H_

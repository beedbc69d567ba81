// How fast this device is: what planners divide the model by. Real kernels on matrices of real
// shapes, in less than a second.
#ifndef RENGA_WORKER_SERVICE_SPEED_PROBE_H_
#define RENGA_WORKER_SERVICE_SPEED_PROBE_H_

#include <functional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "base/data_type.h"
#include "worker/engine/memory_budget.h"
#include "worker/kernels/backend.h"

namespace renga::worker {

// Of products with matrices of one format: among the fastest of some runs, which other processes on
// the machine disturb least. At decode nothing of the matrix is in a cache when a run begins, as in
// a model whose layers take turns.
struct KernelSpeed {
  base::DataType type = base::DataType::kInvalid;
  double decode_bytes_per_second = 0;   // weight bytes, one token
  double prefill_bytes_per_second = 0;  // weight bytes times tokens, kPrefillTokens at once
};

// Tokens of a prefill product.
inline constexpr int64_t kProbePrefillTokens = 64;

// How long computing is measured for.
inline constexpr absl::Duration kProbeTime = absl::Milliseconds(400);

struct DeviceSpeed {
  // Q4_K, Q4_0, Q6_K, Q8_0 and F16, as far as the device has them and the time sufficed; the first
  // one is always there.
  std::vector<KernelSpeed> kernels;
  double layer_us = 0;               // MeasureLayer
  double copy_bytes_per_second = 0;  // from the host's memory to the device's
  double disk_bytes_per_second = 0;  // reading from the folder; 0: not measured
};

// Says whether there is something better to do. May be empty: there never is.
using GiveWay = std::function<bool()>;

// All of it but the disk, which stays 0. Blocks for about `duration`, a little more on slow
// devices; frees what it used. 32 MiB of matrices, but at most a sixteenth of the budget; twice as
// much is reserved, since a backend's layout may be larger, and as much again where caches cannot
// be told to give up a matrix. `give_way` is asked after every product with one of eight matrices,
// or with one for many tokens, some milliseconds as a rule; kCancelled then. Other errors are the
// device's and the budget's.
absl::StatusOr<DeviceSpeed> MeasureComputing(kernels::Backend& backend,
                                             engine::MemoryBudget& budget, absl::Duration duration,
                                             const GiveWay& give_way);

// Blocks for about `duration` and kDiskProbe, a little more on slow devices: a worker that was lost
// must be back before the cluster plans without it (ClusterManager::Options::rejoin_grace).
// `folder` is where shards are kept, "" for nowhere, and what MeasureDisk reads from. Errors are
// MeasureComputing's; a disk that cannot be measured is none.
absl::StatusOr<DeviceSpeed> MeasureDevice(kernels::Backend& backend, engine::MemoryBudget& budget,
                                          const std::string& folder,
                                          absl::Duration duration = kProbeTime);

}  // namespace renga::worker

#endif  // RENGA_WORKER_SERVICE_SPEED_PROBE_H_

// The time to hand a message to a worker process: what a hop costs besides computing.
#ifndef RENGA_CLI_HOP_BENCH_H_
#define RENGA_CLI_HOP_BENCH_H_

#include <vector>

#include "absl/status/statusor.h"
#include "cli/local_cluster.h"
#include "transport/link_probe.h"

namespace renga::cli {

// Times messages of one row of activations (F32), of 8, 16 and 64 KB and of 1 MB to the cluster's
// first worker process and back, over a stream like the activations' own; each size for about a
// second at most. The cluster must have a worker process.
absl::StatusOr<std::vector<transport::RoundTrips>> MeasureHops(LocalCluster& cluster);

}  // namespace renga::cli

#endif  // RENGA_CLI_HOP_BENCH_H_

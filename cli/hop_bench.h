// The time to hand a message to a worker process: what a hop costs besides computing.
#ifndef RENGA_CLI_HOP_BENCH_H_
#define RENGA_CLI_HOP_BENCH_H_

#include <cstdint>
#include <vector>

#include "absl/status/statusor.h"
#include "cli/local_cluster.h"

namespace renga::cli {

struct HopTime {
  int64_t payload_bytes = 0;
  double median_us = 0;  // one way: half a round trip
  double minimum_us = 0;
};

// Times 8, 16 and 64 KB and 1 MB to the cluster's first worker process and back, over a stream
// like the activations' own. The cluster must have a worker process.
absl::StatusOr<std::vector<HopTime>> MeasureHops(LocalCluster& cluster);

}  // namespace renga::cli

#endif  // RENGA_CLI_HOP_BENCH_H_

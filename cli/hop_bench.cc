#include "cli/hop_bench.h"

#include <atomic>

#include "base/status_macros.h"
#include "transport/dialer.h"

namespace renga::cli {
namespace {

constexpr int kRounds = 200;
constexpr absl::Duration kTimeLimit = absl::Seconds(5);

}  // namespace

absl::StatusOr<std::vector<transport::RoundTrips>> MeasureHops(LocalCluster& cluster) {
  const cluster::ClusterStatus status = cluster.coordinator().manager().Status();
  if (status.workers.empty()) return absl::FailedPreconditionError("there is no worker to probe");
  const int64_t row_bytes = cluster.config().d_model * static_cast<int64_t>(sizeof(float));
  const std::atomic<bool> never = false;
  return transport::ProbeLink(
      cluster.coordinator().dialer(),
      {.address = status.workers[0].data_address, .name = status.workers[0].id},
      {.payload_bytes = {row_bytes, 8 << 10, 16 << 10, 64 << 10, 1 << 20},
       .rounds = kRounds,
       .time_limit = kTimeLimit},
      never);
}

}  // namespace renga::cli

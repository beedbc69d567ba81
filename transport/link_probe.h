// Measuring a link with messages like those it will carry: round trips to the peer's data port,
// through the same sockets, encryption and threads as activations.
#ifndef RENGA_TRANSPORT_LINK_PROBE_H_
#define RENGA_TRANSPORT_LINK_PROBE_H_

#include <atomic>
#include <cstdint>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "transport/dialer.h"

namespace renga::transport {

// Bounds of what may be asked for: a link is in use while it is measured.
inline constexpr size_t kMaxProbeSizes = 8;
inline constexpr int64_t kMaxProbeBytes = int64_t{4} << 20;
inline constexpr int kMaxProbeRounds = 1000;
inline constexpr absl::Duration kMaxProbeTime = absl::Seconds(10);

struct LinkProbe {
  std::vector<int64_t> payload_bytes;  // sizes, each measured on its own
  int rounds = 0;                      // of each size, at most
  absl::Duration time_limit;           // of all together; a round that has begun is finished
};
// kInvalidArgument when it is out of bounds.
absl::Status CheckProbe(const LinkProbe& probe);

// How long messages of one size take there and back, in microseconds.
struct RoundTrips {
  int64_t payload_bytes = 0;
  int rounds = 0;  // that count, at least 1
  double p50_us = 0;
  double p99_us = 0;
  double minimum_us = 0;
};

// One element per size, in order. Blocks for about the time limit, on any thread, or until another
// one sets `cancelled` (kCancelled). kInvalidArgument for a bad probe; kUnavailable and the like
// when the peer does not answer. To a worker of this process messages take no time: one round of 1
// us.
absl::StatusOr<std::vector<RoundTrips>> ProbeLink(Dialer& dialer, const PeerAddress& peer,
                                                  const LinkProbe& probe,
                                                  const std::atomic<bool>& cancelled);

}  // namespace renga::transport

#endif  // RENGA_TRANSPORT_LINK_PROBE_H_

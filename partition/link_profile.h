// What the network between the machines of a cluster costs, as measured or as a data sheet says.
#ifndef RENGA_PARTITION_LINK_PROFILE_H_
#define RENGA_PARTITION_LINK_PROFILE_H_

#include <vector>

namespace renga::partition {

// One direction of a link. A message of m bytes takes latency_us + m / bytes_per_second.
struct LinkProfile {
  double latency_us = 0;        // one way, from the sender's call until the receiver computes
  double bytes_per_second = 0;  // 0: no limit
  friend bool operator==(const LinkProfile&, const LinkProfile&) = default;
};

// The coordinator's place in a LinkTable; workers are indices into the profiles of a plan.
inline constexpr int kCoordinator = -1;

// Links between ordered pairs of machines; pairs that are not named have the default. An empty
// table is a network that costs nothing.
struct LinkTable {
  struct Pair {
    int from = 0;
    int to = 0;
    LinkProfile link;
  };
  LinkProfile default_link;
  std::vector<Pair> pairs;  // the last one that names a pair counts
};

}  // namespace renga::partition

#endif  // RENGA_PARTITION_LINK_PROFILE_H_

// Workers that could not load, and how long the next plans do without them.
#ifndef RENGA_COORDINATOR_CLUSTER_LOAD_FAILURES_H_
#define RENGA_COORDINATOR_CLUSTER_LOAD_FAILURES_H_

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "absl/time/time.h"
#include "coordinator/cluster/membership.h"

namespace renga::cluster {

// After its first failure a worker is left out for kFirstPause, twice as long after each further
// one, up to kLongestPause. One that joins anew is forgiven. Not thread-safe.
class LoadFailures {
 public:
  static constexpr absl::Duration kFirstPause = absl::Seconds(1);
  static constexpr absl::Duration kLongestPause = absl::Seconds(30);

  void Add(const Member& member, std::string reason, absl::Duration now);
  void Forgive(const std::string& id);
  bool LeavesOut(const Member& member, absl::Duration now) const;
  // Why members are left out at `now`, by id.
  std::map<std::string, std::string> Reasons(const std::vector<Member>& members,
                                             absl::Duration now) const;

 private:
  struct Failure {
    uint64_t incarnation = 0;
    std::string reason;
    absl::Duration pause;
    absl::Duration until;
  };
  std::map<std::string, Failure> failures_;  // at most one per member
};

}  // namespace renga::cluster

#endif  // RENGA_COORDINATOR_CLUSTER_LOAD_FAILURES_H_

// Slows down whoever tries tokens: after a few wrong ones a host waits before its next try counts.
#ifndef RENGA_COORDINATOR_CLUSTER_GUESS_LIMITER_H_
#define RENGA_COORDINATOR_CLUSTER_GUESS_LIMITER_H_

#include <string>

#include "absl/container/flat_hash_map.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"

namespace renga::cluster {

// A bucket of tries per host: kBurst at once, then one per kRefill. Only wrong tries cost, and only
// the host that made them waits, so nobody can lock others out. Not thread-safe.
class GuessLimiter {
 public:
  static constexpr double kBurst = 10;
  static constexpr absl::Duration kRefill = absl::Seconds(2);
  static constexpr size_t kMaxHosts = 1024;

  // Whether `host` may try at `now`.
  bool Allows(absl::string_view host, absl::Duration now) const;
  void WrongGuess(absl::string_view host, absl::Duration now);

 private:
  struct Bucket {
    double wrong = 0;  // tries not yet paid off at `at`
    absl::Duration at;
  };
  static double WrongAt(const Bucket& bucket, absl::Duration now);

  absl::flat_hash_map<std::string, Bucket> buckets_;
};

}  // namespace renga::cluster

#endif  // RENGA_COORDINATOR_CLUSTER_GUESS_LIMITER_H_

#include "coordinator/cluster/guess_limiter.h"

#include <algorithm>

namespace renga::cluster {

double GuessLimiter::WrongAt(const Bucket& bucket, absl::Duration now) {
  return std::max(0.0, bucket.wrong - absl::FDivDuration(now - bucket.at, kRefill));
}

bool GuessLimiter::Allows(absl::string_view host, absl::Duration now) const {
  const auto it = buckets_.find(host);
  return it == buckets_.end() || WrongAt(it->second, now) <= kBurst - 1;
}

void GuessLimiter::WrongGuess(absl::string_view host, absl::Duration now) {
  if (buckets_.size() >= kMaxHosts && !buckets_.contains(host)) {
    absl::erase_if(buckets_, [&](const auto& entry) { return WrongAt(entry.second, now) == 0; });
    // A network of a thousand guessing hosts gets a fresh start now and then; memory stays bounded.
    if (buckets_.size() >= kMaxHosts) buckets_.clear();
  }
  Bucket& bucket = buckets_[host];
  bucket = {.wrong = WrongAt(bucket, now) + 1, .at = now};
}

}  // namespace renga::cluster

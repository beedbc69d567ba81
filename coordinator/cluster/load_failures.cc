#include "coordinator/cluster/load_failures.h"

#include <algorithm>
#include <utility>

namespace renga::cluster {

void LoadFailures::Add(const Member& member, std::string reason, absl::Duration now) {
  Failure& failure = failures_[member.id];
  const bool again = failure.incarnation == member.incarnation;
  failure.pause = again ? std::min(2 * failure.pause, kLongestPause) : kFirstPause;
  failure.incarnation = member.incarnation;
  failure.reason = std::move(reason);
  failure.until = now + failure.pause;
}

void LoadFailures::Forgive(const std::string& id) { failures_.erase(id); }

bool LoadFailures::LeavesOut(const Member& member, absl::Duration now) const {
  const auto found = failures_.find(member.id);
  return found != failures_.end() && found->second.incarnation == member.incarnation &&
         now < found->second.until;
}

std::map<std::string, std::string> LoadFailures::Reasons(const std::vector<Member>& members,
                                                         absl::Duration now) const {
  std::map<std::string, std::string> reasons;
  for (const Member& member : members) {
    if (LeavesOut(member, now)) reasons[member.id] = failures_.find(member.id)->second.reason;
  }
  return reasons;
}

}  // namespace renga::cluster

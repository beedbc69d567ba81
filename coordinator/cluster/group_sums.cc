#include "coordinator/cluster/group_sums.h"

#include <set>
#include <utility>

#include "absl/strings/str_cat.h"

namespace renga::cluster {
namespace {

// Why NCCL cannot have the group; "" when it can.
std::string WhyNot(const std::vector<const Member*>& group) {
  std::set<std::pair<std::string, std::string>> cards;
  for (const Member* member : group) {
    if (member->offer.card.empty()) return absl::StrCat(member->name, " is no NVIDIA card");
    if (!cards.insert({member->offer.machine, member->offer.card}).second) {
      return absl::StrCat(member->name, " shares its card with another member");
    }
  }
  return "";
}

bool OnOneMachine(const std::vector<const Member*>& group) {
  const std::string& machine = group.front()->offer.machine;
  for (const Member* member : group) {
    if (machine.empty() || member->offer.machine != machine) return false;
  }
  return true;
}

}  // namespace

GroupSumsChoice ChooseGroupSums(partition::GroupSums wanted,
                                const std::vector<const Member*>& group) {
  if (group.size() < 2 || wanted == partition::GroupSums::kSockets) return {};
  const std::string why_not = WhyNot(group);
  if (wanted == partition::GroupSums::kAuto) {
    return {.on_cards = why_not.empty() && OnOneMachine(group), .refusal = ""};
  }
  if (why_not.empty()) return {.on_cards = true, .refusal = ""};
  return {.on_cards = false,
          .refusal = absl::StrCat("a group adds up over sockets, not over NCCL: ", why_not)};
}

}  // namespace renga::cluster

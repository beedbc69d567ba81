// Over what the members of a tensor-parallel group add up their parts.
#ifndef RENGA_COORDINATOR_CLUSTER_GROUP_SUMS_H_
#define RENGA_COORDINATOR_CLUSTER_GROUP_SUMS_H_

#include <string>
#include <vector>

#include "coordinator/cluster/membership.h"
#include "partition/plan.h"

namespace renga::cluster {

struct GroupSumsChoice {
  // On the members' cards, by NCCL; whether they have that library they find out themselves.
  bool on_cards = false;
  std::string refusal;  // a sentence, where NCCL was asked for and cannot be
};

// NCCL takes cards alone, and another one for each member. Its sockets are not encrypted and have
// not been measured, so between machines it is used only when that was asked for. A group of one
// adds nothing up.
GroupSumsChoice ChooseGroupSums(partition::GroupSums wanted,
                                const std::vector<const Member*>& group);

}  // namespace renga::cluster

#endif  // RENGA_COORDINATOR_CLUSTER_GROUP_SUMS_H_

#include "coordinator/cluster/replica_slots.h"

#include <algorithm>
#include <set>

#include "absl/strings/str_cat.h"

namespace renga::cluster {
namespace {

// Whether the worker itself is there, or one of its name that has enrolled anew.
bool IsBack(const std::vector<Member>& members, const Member& wanted) {
  return std::any_of(members.begin(), members.end(), [&](const Member& member) {
    return member.alive && (member.id == wanted.id || member.name == wanted.name);
  });
}

}  // namespace

size_t ReplicaSlots::loading() const {
  return static_cast<size_t>(std::count_if(slots_.begin(), slots_.end(),
                                           [](const ReplicaSlot& slot) { return slot.loading(); }));
}

size_t ReplicaSlots::ready() const {
  return static_cast<size_t>(std::count_if(slots_.begin(), slots_.end(),
                                           [](const ReplicaSlot& slot) { return slot.ready(); }));
}

ReplicaSlot* ReplicaSlots::FirstFree() {
  const auto free = std::find_if(slots_.begin(), slots_.end(),
                                 [](const ReplicaSlot& slot) { return slot.replica == nullptr; });
  return free == slots_.end() ? nullptr : &*free;
}

std::vector<Member> ReplicaSlots::Unplaced(const std::vector<Member>& members) const {
  std::set<std::string> placed;
  for (const ReplicaSlot& slot : slots_) {
    if (slot.replica == nullptr) continue;
    for (const PlacedWorker& worker : slot.last->workers) placed.insert(worker.member.id);
  }
  std::vector<Member> unplaced;
  for (const Member& member : members) {
    if (member.alive && !placed.contains(member.id)) unplaced.push_back(member);
  }
  return unplaced;
}

const Member* ReplicaSlots::Awaited(const std::vector<Member>& members, absl::Duration now,
                                    absl::Duration grace) const {
  for (const ReplicaSlot& slot : slots_) {
    if (slot.replica != nullptr || slot.last == nullptr || now >= slot.ended_at + grace) continue;
    for (const PlacedWorker& placed : slot.last->workers) {
      if (!IsBack(members, placed.member)) return &placed.member;
    }
  }
  return nullptr;
}

std::string ReplicaSlots::Sentence(const std::string& model_name) const {
  size_t on_ready = 0;  // workers
  size_t on_loading = 0;
  for (const ReplicaSlot& slot : slots_) {
    if (slot.ready()) on_ready += slot.last->workers.size();
    if (slot.loading()) on_loading += slot.last->workers.size();
  }
  if (on_ready + on_loading == 0) return "";
  if (on_ready == 0) {
    return absl::StrCat("loading ", model_name, " onto ", on_loading, " workers");
  }
  std::string sentence =
      absl::StrCat(model_name, " is ready on ", on_ready, on_ready == 1 ? " worker" : " workers");
  if (ready() > 1) absl::StrAppend(&sentence, " in ", ready(), " replicas");
  if (on_loading > 0) absl::StrAppend(&sentence, "; loading it onto ", on_loading, " more");
  return sentence;
}

std::vector<ReplicaView> ReplicaSlots::Views() const {
  std::vector<ReplicaView> views;
  for (const ReplicaSlot& slot : slots_) {
    if (slot.replica == nullptr) continue;
    views.push_back({.state = slot.ready() ? ClusterState::kReady : ClusterState::kLoading,
                     .epoch = slot.replica->epoch(),
                     .placement = slot.last,
                     .loads = slot.replica->loaded(),
                     .pipeline = slot.replica->pipeline(),
                     .times = {}});
  }
  return views;
}

}  // namespace renga::cluster

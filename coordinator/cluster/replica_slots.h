// The places of a cluster's replicas: which of them have a plan, on which workers.
#ifndef RENGA_COORDINATOR_CLUSTER_REPLICA_SLOTS_H_
#define RENGA_COORDINATOR_CLUSTER_REPLICA_SLOTS_H_

#include <cstddef>
#include <memory>
#include <string>
#include <vector>

#include "absl/time/time.h"
#include "coordinator/cluster/membership.h"
#include "coordinator/cluster/placement.h"
#include "coordinator/cluster/replica.h"
#include "coordinator/cluster/status_report.h"

namespace renga::cluster {

struct ReplicaSlot {
  std::unique_ptr<Replica> replica;       // null: none is planned
  std::shared_ptr<const Placement> last;  // the replica's, or what its successor recovers from
  absl::Duration ended_at = -absl::InfiniteDuration();

  bool loading() const { return replica != nullptr && replica->pipeline() == nullptr; }
  bool ready() const { return replica != nullptr && replica->pipeline() != nullptr; }
};

// Not thread-safe.
class ReplicaSlots {
 public:
  explicit ReplicaSlots(size_t count) : slots_(count) {}

  size_t size() const { return slots_.size(); }
  ReplicaSlot& operator[](size_t slot) { return slots_[slot]; }
  const ReplicaSlot& operator[](size_t slot) const { return slots_[slot]; }
  void Clear() { slots_.clear(); }

  size_t loading() const;
  size_t ready() const;
  size_t planned() const { return loading() + ready(); }
  // Null when all of them have a plan.
  ReplicaSlot* FirstFree();

  // The members that are alive and in no replica.
  std::vector<Member> Unplaced(const std::vector<Member>& members) const;
  // A worker of a replica that ended less than `grace` ago, which is not back yet; null: none.
  const Member* Awaited(const std::vector<Member>& members, absl::Duration now,
                        absl::Duration grace) const;

  // "tinyllama is ready on 4 workers in 2 replicas"; empty without any plan.
  std::string Sentence(const std::string& model_name) const;
  // Of those that have a plan; without times.
  std::vector<ReplicaView> Views() const;

 private:
  std::vector<ReplicaSlot> slots_;
};

}  // namespace renga::cluster

#endif  // RENGA_COORDINATOR_CLUSTER_REPLICA_SLOTS_H_

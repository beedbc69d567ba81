// Workers that no plan can tell apart are one kind: the search counts them instead of naming them,
// so that sixteen equal machines are seventeen sets and not 65536.
#ifndef RENGA_PARTITION_MACHINE_KINDS_H_
#define RENGA_PARTITION_MACHINE_KINDS_H_

#include <vector>

#include "partition/link_profile.h"
#include "partition/plan.h"

namespace renga::partition {

// Two workers are of one kind when their profiles are equal but for the name, exchanging them
// changes no link, and they are on one machine or each alone on its own. That relation is
// transitive. `workers` outlives the object.
class MachineKinds {
 public:
  MachineKinds(const std::vector<WorkerProfile>& workers, const LinkTable& links);

  int count() const { return static_cast<int>(kinds_.size()); }
  // Indices into the profiles, ascending; never empty.
  const std::vector<int>& WorkersOf(int kind) const { return kinds_[kind]; }
  // The machine that the workers of the kind share with each other or with other workers, as a
  // number from 0 on; -1: each has one of its own.
  int MachineOf(int kind) const { return machine_of_[kinds_[kind][0]]; }
  const WorkerProfile& ProfileOf(int kind) const { return workers_[kinds_[kind][0]]; }
  int KindOf(int worker) const { return kind_of_[worker]; }
  // From any worker of one kind to any other worker of another, or of the same kind; either may be
  // kCoordinator.
  const LinkProfile& Link(int from_kind, int to_kind) const;

 private:
  const LinkProfile& LinkBetween(int from, int to) const;
  bool Interchangeable(int a, int b) const;

  const std::vector<WorkerProfile>& workers_;
  LinkProfile default_link_;
  // (workers + 1) x (workers + 1), the coordinator last; empty when every link is the default.
  std::vector<LinkProfile> links_;
  std::vector<std::vector<int>> kinds_;
  std::vector<int> kind_of_;
  std::vector<int> machine_of_;  // of each worker, as MachineOf
};

}  // namespace renga::partition

#endif  // RENGA_PARTITION_MACHINE_KINDS_H_

#include "partition/machine_kinds.h"

#include <cstddef>
#include <map>
#include <string>

namespace renga::partition {
namespace {

bool SameProfile(const WorkerProfile& a, const WorkerProfile& b) {
  WorkerProfile renamed = a;
  renamed.id = b.id;
  renamed.machine = b.machine;
  return renamed == b;
}

// As MachineKinds::MachineOf, of each worker.
std::vector<int> SharedMachines(const std::vector<WorkerProfile>& workers) {
  std::map<std::string, std::vector<size_t>> machines;
  for (size_t i = 0; i < workers.size(); ++i) {
    if (!workers[i].machine.empty()) machines[workers[i].machine].push_back(i);
  }
  std::vector<int> numbers(workers.size(), -1);
  int next = 0;
  for (const auto& [name, on_it] : machines) {
    if (on_it.size() < 2) continue;
    for (const size_t worker : on_it) numbers[worker] = next;
    ++next;
  }
  return numbers;
}

}  // namespace

MachineKinds::MachineKinds(const std::vector<WorkerProfile>& workers, const LinkTable& links)
    : workers_(workers),
      default_link_(links.default_link),
      kind_of_(workers.size(), -1),
      machine_of_(SharedMachines(workers)) {
  if (!links.pairs.empty()) {
    const size_t side = workers.size() + 1;
    links_.assign(side * side, default_link_);
    const auto place = [&](int machine) {
      return machine == kCoordinator ? workers.size() : static_cast<size_t>(machine);
    };
    for (const LinkTable::Pair& pair : links.pairs) {
      links_[place(pair.from) * side + place(pair.to)] = pair.link;
    }
  }
  for (int worker = 0; worker < static_cast<int>(workers.size()); ++worker) {
    for (int kind = 0; kind < count() && kind_of_[worker] < 0; ++kind) {
      if (Interchangeable(kinds_[kind][0], worker)) kind_of_[worker] = kind;
    }
    if (kind_of_[worker] < 0) {
      kind_of_[worker] = count();
      kinds_.emplace_back();
    }
    kinds_[kind_of_[worker]].push_back(worker);
  }
}

const LinkProfile& MachineKinds::LinkBetween(int from, int to) const {
  if (links_.empty()) return default_link_;
  const size_t last = workers_.size();
  const size_t row = from == kCoordinator ? last : from;
  const size_t column = to == kCoordinator ? last : to;
  return links_[row * (last + 1) + column];
}

const LinkProfile& MachineKinds::Link(int from_kind, int to_kind) const {
  const int from = from_kind == kCoordinator ? kCoordinator : kinds_[from_kind][0];
  if (to_kind == kCoordinator) return LinkBetween(from, kCoordinator);
  const std::vector<int>& to = kinds_[to_kind];
  return LinkBetween(from, to[from_kind == to_kind && to.size() > 1 ? 1 : 0]);
}

bool MachineKinds::Interchangeable(int a, int b) const {
  if (!SameProfile(workers_[a], workers_[b]) || machine_of_[a] != machine_of_[b]) return false;
  if (links_.empty()) return true;
  if (LinkBetween(a, b) != LinkBetween(b, a)) return false;
  for (int other = kCoordinator; other < static_cast<int>(workers_.size()); ++other) {
    if (other == a || other == b) continue;
    if (LinkBetween(a, other) != LinkBetween(b, other) ||
        LinkBetween(other, a) != LinkBetween(other, b)) {
      return false;
    }
  }
  return true;
}

}  // namespace renga::partition

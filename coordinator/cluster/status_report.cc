#include "coordinator/cluster/status_report.h"

#include <algorithm>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"

namespace renga::cluster {
namespace {

WorkerStatus StatusOf(const Member& member, absl::Duration now) {
  WorkerStatus status;
  status.id = member.id;
  status.name = member.name;
  status.address = member.address;
  status.data_address = member.data_address;
  status.state = member.alive ? WorkerState::kIdle : WorkerState::kLost;
  status.in_state = now - member.since;
  status.detail = member.lost_reason;
  status.offer = member.offer;
  status.heartbeat_age = now - member.last_heard;
  status.heartbeat = member.last_heartbeat;
  if (status.heartbeat.speed.has_value()) {
    status.speed_age = status.heartbeat.speed->age + status.heartbeat_age;
  }
  return status;
}

// Adds what the plan gives this worker. A member that has joined anew since is not the one that
// was planned with.
void AddPart(const ReplicaView& view, uint32_t replica, const Member& member,
             WorkerStatus& status) {
  const Placement& placement = *view.placement;
  for (uint32_t index = 0; index < placement.workers.size(); ++index) {
    const PlacedWorker& placed = placement.workers[index];
    if (placed.member.id != member.id) continue;
    if (placed.member.incarnation != member.incarnation) continue;
    if (member.alive) status.state = WorkerState::kActive;
    status.replica = replica;
    status.worker_index = index;
    status.shard = placed.spec;
    status.planned_bytes = placed.bytes.total();
    status.predicted_ms = placed.predicted_ms;
    status.planned_weight_bytes_per_second = placed.member.offer.weight_bytes_per_second;
    if (placed.by_measured_usage) status.expected_missed_bytes = placed.streamed_bytes;
    if (index < view.loads.size()) status.load = view.loads[index];
    if (index < view.times.workers.size()) status.times = view.times.workers[index];
  }
  for (const IdleWorker& idle : placement.idle) {
    if (idle.member.id == member.id && status.state == WorkerState::kIdle) {
      status.detail = idle.reason;
    }
  }
}

// Divides what all hops took as it was predicted; alike, where the links were not measured.
void ShareOut(double measured_ms, const std::vector<Comparison*>& hops) {
  double predicted_ms = 0;
  for (const Comparison* hop : hops) predicted_ms += hop->predicted_ms;
  for (Comparison* hop : hops) {
    const double share =
        predicted_ms > 0 ? hop->predicted_ms / predicted_ms : 1 / static_cast<double>(hops.size());
    hop->measured_ms = share * measured_ms;
  }
}

void AddStages(const ReplicaView& view, ReplicaStatus& status) {
  const Placement& placement = *view.placement;
  const partition::PlanTimes& predicted = placement.predicted;
  const auto times = [&](uint32_t worker) {
    return worker < view.times.workers.size() ? view.times.workers[worker] : WorkerTimes();
  };
  for (size_t i = 0; i < placement.stages.size() && i < predicted.stages.size(); ++i) {
    StageStatus& stage = status.stages.emplace_back();
    stage.workers = placement.stages[i];
    stage.layers = placement.workers[stage.workers[0]].spec.layers;
    stage.hop.predicted_ms = predicted.stages[i].hop;
    stage.compute.predicted_ms = predicted.stages[i].compute + predicted.stages[i].sums;
    for (const uint32_t worker : stage.workers) {
      stage.compute.measured_ms =
          std::max(stage.compute.measured_ms, times(worker).decode_layers_us / 1000);
    }
  }
  status.head.predicted_ms = predicted.head_compute;
  status.answer_hop.predicted_ms = predicted.head - predicted.head_compute;
  for (const uint32_t worker : placement.heads) {
    status.head.measured_ms =
        std::max(status.head.measured_ms, times(worker).decode_head_us / 1000);
  }
  std::vector<Comparison*> hops = {&status.answer_hop};
  for (StageStatus& stage : status.stages) hops.push_back(&stage.hop);
  ShareOut(view.times.decode_network_us / 1000, hops);
}

void AddReplica(const ClusterView& view, const ReplicaView& replica, ClusterStatus& status) {
  const Placement& placement = *replica.placement;
  ReplicaStatus& added = status.replicas.emplace_back();
  added.state = replica.state;
  added.epoch = replica.epoch;
  added.limits = placement.limits;
  added.predicted_token_ms = placement.predicted_token_ms;
  added.times = replica.times;
  AddStages(replica, added);
  status.epoch = std::max(status.epoch, replica.epoch);
  if (view.replicas.size() > 1) {
    absl::StrAppend(&status.plan_text, "replica ", status.replicas.size(), ":\n");
  }
  status.plan_text += placement.text;
  status.warnings.insert(status.warnings.end(), placement.warnings.begin(),
                         placement.warnings.end());
}

int Rank(const WorkerStatus& status) {
  constexpr int kOfReplica = 10'000;  // more than a plan has workers
  if (status.worker_index.has_value()) {
    return static_cast<int>(*status.replica) * kOfReplica + static_cast<int>(*status.worker_index);
  }
  return status.state == WorkerState::kLost ? 2'000'000 : 1'000'000;
}

}  // namespace

absl::string_view ClusterStateName(ClusterState state) {
  switch (state) {
    case ClusterState::kWaiting:
      return "waiting";
    case ClusterState::kLoading:
      return "loading";
    case ClusterState::kReady:
      return "ready";
    case ClusterState::kBroken:
      return "broken";
  }
  return "";
}

absl::string_view WorkerStateName(WorkerState state) {
  switch (state) {
    case WorkerState::kActive:
      return "active";
    case WorkerState::kIdle:
      return "idle";
    case WorkerState::kLost:
      return "lost";
  }
  return "";
}

std::string DescribeWorker(const Member& member) {
  return absl::StrCat(member.name, " (", member.id, ")");
}

ClusterStatus MakeStatus(const ClusterView& view, const ModelStore& store,
                         const std::vector<Member>& members, absl::Duration now) {
  ClusterStatus status;
  status.state = view.state;
  status.sentence = view.sentence;
  const model::ModelConfig& config = store.model().config;
  status.model_name = config.name.empty() ? config.architecture : config.name;
  status.model_id = store.manifest().model_id.ToHex();
  for (const ReplicaView& replica : view.replicas) AddReplica(view, replica, status);
  for (const Member& member : members) {
    WorkerStatus worker = StatusOf(member, now);
    for (uint32_t i = 0; i < view.replicas.size(); ++i) {
      AddPart(view.replicas[i], i, member, worker);
    }
    const auto left_out = view.left_out.find(member.id);
    if (left_out != view.left_out.end() && member.alive) worker.detail = left_out->second;
    status.workers.push_back(std::move(worker));
  }
  std::stable_sort(status.workers.begin(), status.workers.end(),
                   [](const WorkerStatus& a, const WorkerStatus& b) { return Rank(a) < Rank(b); });
  return status;
}

}  // namespace renga::cluster

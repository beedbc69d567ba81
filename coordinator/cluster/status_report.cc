#include "coordinator/cluster/status_report.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"

namespace renga::cluster {
namespace {

WorkerStatus StatusOf(const Member& member, absl::Duration now) {
  WorkerStatus status;
  status.id = member.id;
  status.name = member.name;
  status.address = member.address;
  status.state = member.alive ? WorkerState::kIdle : WorkerState::kLost;
  status.in_state = now - member.since;
  status.detail = member.lost_reason;
  status.offer = member.offer;
  status.heartbeat_age = now - member.last_heard;
  status.heartbeat = member.last_heartbeat;
  return status;
}

// Adds what the plan gives this worker. A member that has joined anew since is not the one that
// was planned with.
void AddPart(const ClusterView& view, const Member& member, WorkerStatus& status) {
  const Placement& placement = *view.placement;
  for (uint32_t index = 0; index < placement.workers.size(); ++index) {
    const PlacedWorker& placed = placement.workers[index];
    if (placed.member.id != member.id) continue;
    if (placed.member.incarnation != member.incarnation) continue;
    if (member.alive) status.state = WorkerState::kActive;
    status.worker_index = index;
    status.shard = placed.spec;
    status.planned_bytes = placed.bytes.total();
    status.predicted_ms = placed.predicted_ms;
    if (index < view.loads.size()) status.load = view.loads[index];
    if (index < view.times.workers.size()) status.times = view.times.workers[index];
  }
  for (const IdleWorker& idle : placement.idle) {
    if (idle.member.id == member.id && member.alive) status.detail = idle.reason;
  }
}

int Rank(const WorkerStatus& status) {
  if (status.worker_index.has_value()) return static_cast<int>(*status.worker_index);
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
  status.epoch = view.epoch;
  const model::ModelConfig& config = store.model().config;
  status.model_name = config.name.empty() ? config.architecture : config.name;
  status.model_id = store.manifest().model_id.ToHex();
  status.times = view.times;
  if (view.placement != nullptr) {
    status.limits = view.placement->limits;
    status.stage_count = view.placement->stage_count;
    status.predicted_token_ms = view.placement->predicted_token_ms;
    status.plan_text = view.placement->text;
    status.warnings = view.placement->warnings;
  }
  for (const Member& member : members) {
    WorkerStatus worker = StatusOf(member, now);
    if (view.placement != nullptr) AddPart(view, member, worker);
    const auto left_out = view.left_out.find(member.id);
    if (left_out != view.left_out.end() && member.alive) worker.detail = left_out->second;
    status.workers.push_back(std::move(worker));
  }
  std::stable_sort(status.workers.begin(), status.workers.end(),
                   [](const WorkerStatus& a, const WorkerStatus& b) { return Rank(a) < Rank(b); });
  return status;
}

}  // namespace renga::cluster

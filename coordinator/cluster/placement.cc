#include "coordinator/cluster/placement.h"

#include <algorithm>
#include <set>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "base/status_macros.h"
#include "partition/explain.h"
#include "partition/planner.h"

namespace renga::cluster {
namespace {

// What the planner calls the workers in its sentences: their names, with ids where names repeat.
std::vector<partition::WorkerProfile> ProfilesOf(const std::vector<Member>& members) {
  std::vector<partition::WorkerProfile> profiles;
  for (const Member& member : members) {
    const auto namesakes = std::count_if(members.begin(), members.end(), [&](const Member& other) {
      return other.name == member.name;
    });
    profiles.push_back(
        {.id = namesakes > 1 ? absl::StrCat(member.name, " (", member.id, ")") : member.name,
         .memory_bytes = member.offer.memory_bytes,
         .bytes_per_second = member.offer.weight_bytes_per_second});
  }
  return profiles;
}

std::string MixedPathsWarning(const std::vector<PlacedWorker>& workers) {
  std::set<std::string> paths;
  for (const PlacedWorker& worker : workers) paths.insert(worker.member.offer.device_path);
  if (paths.size() < 2) return "";
  return absl::StrCat("workers compute on different paths (", absl::StrJoin(paths, ", "),
                      "): answers may differ in their last bits from those of one path");
}

}  // namespace

absl::StatusOr<Placement> PlaceModel(const ModelStore& store,
                                     const std::vector<Member>& measured_members,
                                     partition::PlanRequest request, const LastPlacement& last) {
  const std::vector<Member> members = WithSettledSpeeds(measured_members, last);
  const std::vector<partition::WorkerProfile> profiles = ProfilesOf(members);
  request.previous.clear();
  for (size_t i = 0; i < members.size(); ++i) {
    if (const LastShard* shard = FindLastShard(last, members[i], members)) {
      request.previous.push_back({.worker_id = profiles[i].id, .spec = shard->spec});
    }
  }
  RENGA_ASSIGN_OR_RETURN(const partition::Plan plan,
                         partition::MakePlan(store.model(), store.footprint(), profiles, request));

  Placement placement;
  std::vector<int> order;  // of members, by worker index
  for (const partition::StagePlan& stage : plan.stages) order.push_back(stage.worker);
  placement.stage_count = static_cast<int64_t>(order.size());
  for (const partition::HeadPlan& head : plan.heads) {
    auto found = std::find(order.begin(), order.end(), head.worker);
    if (found == order.end()) found = order.insert(order.end(), head.worker);
    placement.heads.push_back(static_cast<uint32_t>(found - order.begin()));
  }
  for (int index : order) {
    const partition::WorkerPlan& worker = plan.workers[index];
    placement.workers.push_back({members[index], worker.spec, worker.bytes, worker.predicted_ms});
  }
  for (size_t i = 0; i < members.size(); ++i) {
    if (plan.workers[i].idle()) {
      placement.idle.push_back({members[i], plan.workers[i].idle_reason});
    }
  }
  placement.limits = plan.limits;
  placement.predicted_token_ms = plan.stream_ms;
  placement.text = partition::ExplainPlan(plan, profiles);
  placement.warnings = plan.notes;
  if (std::string warning = MixedPathsWarning(placement.workers); !warning.empty()) {
    placement.warnings.push_back(std::move(warning));
  }
  return placement;
}

LastPlacement Remember(const Placement& placement) {
  LastPlacement last;
  for (const PlacedWorker& worker : placement.workers) {
    last.push_back({.worker_id = worker.member.id,
                    .worker_name = worker.member.name,
                    .spec = worker.spec,
                    .weight_bytes_per_second = worker.member.offer.weight_bytes_per_second});
  }
  return last;
}

}  // namespace renga::cluster

#include "coordinator/cluster/placement.h"

#include <algorithm>
#include <map>
#include <optional>
#include <set>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "base/status_macros.h"
#include "coordinator/cluster/group_sums.h"
#include "partition/explain.h"
#include "partition/replicas.h"
#include "transport/identity.h"

namespace renga::cluster {
namespace {

// Weights times tokens per second over all of a model's layers; 0: not measured. A format without a
// measurement is taken for the first one.
double PrefillSpeed(const std::vector<KernelSpeed>& kernels,
                    const std::map<base::DataType, int64_t>& layer_bytes_of) {
  if (kernels.empty()) return 0;
  double bytes = 0;
  double seconds = 0;
  for (const auto& [type, count] : layer_bytes_of) {
    const auto known =
        std::find_if(kernels.begin(), kernels.end(),
                     [type = type](const auto& kernel) { return kernel.type == type; });
    const KernelSpeed& kernel = known == kernels.end() ? kernels.front() : *known;
    bytes += static_cast<double>(count);
    seconds += static_cast<double>(count) / kernel.prefill_bytes_per_second;
  }
  return seconds > 0 ? bytes / seconds : 0;
}

// What the planner calls the workers in its sentences: their names, with ids where names repeat.
std::vector<partition::WorkerProfile> ProfilesOf(const std::vector<Member>& members,
                                                 const model::ModelFootprint& footprint) {
  std::vector<partition::WorkerProfile> profiles;
  for (const Member& member : members) {
    const auto namesakes = std::count_if(members.begin(), members.end(), [&](const Member& other) {
      return other.name == member.name;
    });
    partition::WorkerProfile& profile = profiles.emplace_back();
    profile.id = namesakes > 1 ? absl::StrCat(member.name, " (", member.id, ")") : member.name;
    profile.memory_bytes = member.offer.memory_bytes;
    profile.bytes_per_second = member.offer.weight_bytes_per_second;
    profile.disk_bytes_per_second = member.offer.disk_bytes_per_second;
    profile.streams = member.offer.card.empty();
    profile.layer_us = member.offer.layer_us;
    profile.spare = member.offer.spare;
    profile.machine = member.offer.machine;
    profile.prefill_bytes_per_second = PrefillSpeed(member.offer.kernels, footprint.layer_bytes_of);
    for (const KernelSpeed& kernel : member.offer.kernels) {
      profile.bytes_per_second_of[kernel.type] = kernel.decode_bytes_per_second;
    }
  }
  return profiles;
}

// Half a round trip of a row of activations, and what more bytes take. A link between two workers
// stands for both directions.
partition::LinkProfile OneWay(const LinkProfile& link) {
  const LinkTime& small = link.times.front();
  const double transfer_us = link.bytes_per_second > 0 ? static_cast<double>(small.payload_bytes) /
                                                             link.bytes_per_second * 1e6
                                                       : 0.0;
  return {.latency_us = std::max(0.0, small.rtt_p50_us / 2 - transfer_us),
          .bytes_per_second = link.bytes_per_second};
}

partition::LinkTable TableOf(const std::vector<LinkProfile>& links,
                             const std::vector<Member>& members) {
  const auto index_of = [&](const std::string& id) -> std::optional<int> {
    if (id == transport::kCoordinatorName) return partition::kCoordinator;
    for (size_t i = 0; i < members.size(); ++i) {
      if (members[i].id == id) return static_cast<int>(i);
    }
    return std::nullopt;
  };
  partition::LinkTable table;
  for (const LinkProfile& link : links) {
    const std::optional<int> from = index_of(link.from);
    const std::optional<int> to = index_of(link.to);
    if (!from.has_value() || !to.has_value()) continue;
    table.pairs.push_back({.from = *from, .to = *to, .link = OneWay(link)});
    table.pairs.push_back({.from = *to, .to = *from, .link = OneWay(link)});
  }
  return table;
}

std::string MixedPathsWarning(const std::vector<PlacedWorker>& workers) {
  std::set<std::string> paths;
  for (const PlacedWorker& worker : workers) paths.insert(worker.member.offer.device_path);
  if (paths.size() < 2) return "";
  return absl::StrCat("workers compute on different paths (", absl::StrJoin(paths, ", "),
                      "): answers may differ in their last bits from those of one path");
}

Placement ToPlacement(const partition::Plan& plan, const std::vector<Member>& members,
                      const std::vector<partition::WorkerProfile>& profiles) {
  Placement placement;
  std::vector<int> order;  // of members, by worker index
  for (const partition::StagePlan& stage : plan.stages) {
    std::vector<uint32_t>& members_of_stage = placement.stages.emplace_back();
    for (const partition::StageMember& member : stage.members) {
      members_of_stage.push_back(static_cast<uint32_t>(order.size()));
      order.push_back(member.worker);
    }
  }
  for (const partition::HeadPlan& head : plan.heads) {
    auto found = std::find(order.begin(), order.end(), head.worker);
    if (found == order.end()) found = order.insert(order.end(), head.worker);
    placement.heads.push_back(static_cast<uint32_t>(found - order.begin()));
  }
  if (plan.embedding_worker != partition::kCoordinator) {
    const auto found = std::find(order.begin(), order.end(), plan.embedding_worker);
    placement.embedding = static_cast<uint32_t>(found - order.begin());
  }
  for (int index : order) {
    const partition::WorkerPlan& worker = plan.workers[index];
    placement.workers.push_back({members[index], worker.spec, worker.bytes, worker.predicted_ms,
                                 worker.streamed_bytes, worker.by_measured_usage});
  }
  for (size_t i = 0; i < members.size(); ++i) {
    const partition::WorkerPlan& worker = plan.workers[i];
    if (!worker.idle() || worker.idle_reason.empty()) continue;
    placement.idle.push_back({members[i], worker.idle_reason});
  }
  placement.limits = plan.limits;
  placement.predicted_token_ms = plan.stream_ms;
  placement.predicted = plan.times;
  placement.text = partition::ExplainPlan(plan, profiles);
  placement.warnings = plan.notes;
  if (std::string warning = MixedPathsWarning(placement.workers); !warning.empty()) {
    placement.warnings.push_back(std::move(warning));
  }
  return placement;
}

// A worker of one replica is not idle for the others.
void ForgetOtherReplicas(std::vector<partition::Plan>& plans) {
  for (size_t worker = 0; worker < plans.front().workers.size(); ++worker) {
    const bool busy = std::any_of(plans.begin(), plans.end(), [&](const partition::Plan& plan) {
      return !plan.workers[worker].idle();
    });
    for (partition::Plan& plan : plans) {
      if (busy) plan.workers[worker].idle_reason.clear();
    }
  }
}

void SetGroupSums(partition::GroupSums wanted, Placement& placement) {
  for (const std::vector<uint32_t>& stage : placement.stages) {
    std::vector<const Member*> group;
    for (const uint32_t worker : stage) group.push_back(&placement.workers[worker].member);
    const GroupSumsChoice choice = ChooseGroupSums(wanted, group);
    placement.sums_on_cards.push_back(choice.on_cards);
    if (!choice.refusal.empty()) placement.warnings.push_back(choice.refusal);
  }
}

}  // namespace

partition::Cluster ToCluster(const std::vector<Member>& members,
                             const model::ModelFootprint& footprint,
                             const std::vector<LinkProfile>& links) {
  return {.workers = ProfilesOf(members, footprint), .links = TableOf(links, members)};
}

absl::StatusOr<std::vector<Placement>> PlaceModel(const ModelStore& store,
                                                  const std::vector<Member>& measured_members,
                                                  partition::PlanRequest request,
                                                  const LastPlacement& last,
                                                  const std::vector<LinkProfile>& links) {
  const std::vector<Member> members = WithSettledSpeeds(measured_members, last);
  const auto [profiles, table] = ToCluster(members, store.footprint(), links);
  request.links = table;
  request.previous.clear();
  for (size_t i = 0; i < members.size(); ++i) {
    if (const LastShard* shard = FindLastShard(last, members[i], members)) {
      request.previous.push_back(
          {.worker_id = profiles[i].id, .spec = shard->spec, .replica = shard->replica});
    }
  }
  RENGA_ASSIGN_OR_RETURN(
      partition::Replicas replicas,
      partition::PlanReplicas(store.model(), store.footprint(), profiles, request));
  ForgetOtherReplicas(replicas.plans);
  std::vector<Placement> placements;
  for (const partition::Plan& plan : replicas.plans) {
    placements.push_back(ToPlacement(plan, members, profiles));
    placements.back().lazy = request.lazy;
    SetGroupSums(request.group_sums, placements.back());
  }
  return placements;
}

std::vector<PieceHolder> HoldersAmong(const std::vector<Member>& members,
                                      const LastPlacement& last) {
  std::vector<PieceHolder> holders;
  for (const Member& member : members) {
    // In this process the model file itself is read.
    if (!member.alive || absl::StartsWith(member.address, "inproc:")) continue;
    if (const LastShard* shard = FindLastShard(last, member, members)) {
      holders.push_back({.member = member, .spec = shard->spec});
    }
  }
  return holders;
}

LastPlacement Remember(const Placement& placement, int64_t replica) {
  LastPlacement last;
  for (const PlacedWorker& worker : placement.workers) {
    last.push_back({.worker_id = worker.member.id,
                    .worker_name = worker.member.name,
                    .spec = worker.spec,
                    .weight_bytes_per_second = worker.member.offer.weight_bytes_per_second,
                    .disk_bytes_per_second = worker.member.offer.disk_bytes_per_second,
                    .layer_us = worker.member.offer.layer_us,
                    .kernels = worker.member.offer.kernels,
                    .replica = replica});
  }
  return last;
}

}  // namespace renga::cluster

#include "partition/replicas.h"

#include <algorithm>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "base/byte_size.h"
#include "base/status_macros.h"
#include "partition/planner.h"
#include "partition/replica_search.h"

namespace renga::partition {
namespace {

// Up to so many different sets of workers all divisions are looked at. With groups a set takes some
// ten times as long to plan.
constexpr int64_t kMostSets = 512;
constexpr int64_t kMostSetsWithGroups = 64;
// The last division is kept when it gives at least this part of the best one's steps.
constexpr double kWorthKeepingOfSteps = 0.8;

using Groups = std::vector<std::vector<int>>;  // of workers, a group for each replica

struct Grouping {
  Groups groups;
  ReplicaWorth worth;
  bool exact = false;
};

// Any workers of the right kinds: they cannot be told apart.
Groups NameGroups(const MachineKinds& kinds, const Division& division) {
  Groups groups;
  KindCounts used(kinds.count(), 0);
  for (const KindCounts& counts : division.replicas) {
    std::vector<int>& group = groups.emplace_back();
    for (int kind = 0; kind < kinds.count(); ++kind) {
      const auto first = kinds.WorkersOf(kind).begin() + used[kind];
      group.insert(group.end(), first, first + counts[kind]);
      used[kind] += counts[kind];
    }
    std::sort(group.begin(), group.end());
  }
  return groups;
}

size_t WorkersIn(const Groups& groups) {
  size_t count = 0;
  for (const std::vector<int>& group : groups) count += group.size();
  return count;
}

// The division of the last plan, if all of its workers are here.
Groups PreviousGroups(const std::vector<WorkerProfile>& workers, const PlanRequest& request) {
  std::map<int64_t, std::vector<int>> groups;
  for (const PreviousShard& shard : request.previous) {
    const auto found =
        std::find_if(workers.begin(), workers.end(),
                     [&](const WorkerProfile& worker) { return worker.id == shard.worker_id; });
    if (found == workers.end()) return {};
    groups[shard.replica].push_back(static_cast<int>(found - workers.begin()));
  }
  Groups previous;
  for (auto& [replica, group] : groups) {
    std::sort(group.begin(), group.end());
    previous.push_back(std::move(group));
  }
  return previous;
}

// Keeps the last division where it uses as many workers and is nearly as good.
void KeepPrevious(SetPlanner& sets, const PlanRequest& request, Grouping& found) {
  Groups previous = PreviousGroups(sets.workers(), request);
  if (previous.size() != found.groups.size() || WorkersIn(previous) != WorkersIn(found.groups)) {
    return;
  }
  ReplicaWorth worth;
  for (const std::vector<int>& group : previous) {
    KindCounts counts(sets.kinds().count(), 0);
    for (const int worker : group) ++counts[sets.kinds().KindOf(worker)];
    const ReplicaWorth one = sets.WorthOf(counts, std::ssize(previous));
    if (one.steps_per_second <= 0) return;
    worth = worth + one;
  }
  if (worth.steps_per_second < kWorthKeepingOfSteps * found.worth.steps_per_second) return;
  found.exact = found.exact && !found.worth.BetterThan(worth);
  found.groups = std::move(previous);
  found.worth = worth;
}

std::optional<Grouping> Search(SetPlanner& sets, const PlanRequest& request) {
  const bool exact =
      sets.SetCount() <= (request.tensor_parallel == 1 ? kMostSets : kMostSetsWithGroups);
  const int64_t most = std::min({request.max_replicas, static_cast<int64_t>(sets.workers().size()),
                                 std::max(request.min_replicas, request.max_sequences)});
  std::optional<Division> best;
  for (int64_t replicas = request.min_replicas; replicas <= most; ++replicas) {
    std::optional<Division> division =
        exact ? DivideExactly(sets, replicas) : DivideNearby(sets, replicas);
    if (division && (!best || division->worth.BetterThan(best->worth))) best = std::move(division);
  }
  if (!best) return std::nullopt;
  Grouping found{NameGroups(sets.kinds(), *best), best->worth, exact};
  KeepPrevious(sets, request, found);
  return found;
}

// Without memory beside cards, then with it; without reading from disks, then, where that was
// asked for, with it. The workers of the first that has a division; spares that are left out offer
// nothing.
std::optional<Grouping> SearchInSteps(const model::Model& model,
                                      const model::ModelFootprint& footprint,
                                      const std::vector<WorkerProfile>& workers,
                                      const PlanRequest& request, double& bound) {
  std::vector<WorkerProfile> without = workers;
  for (WorkerProfile& worker : without) {
    if (worker.spare) worker.memory_bytes = 0;
  }
  PlanRequest asked = request;
  for (const bool lazy : {false, true}) {
    if (lazy && !request.lazy) break;
    asked.lazy = lazy;
    for (const std::vector<WorkerProfile>* offered : {&std::as_const(without), &workers}) {
      if (lazy && offered == &without) continue;
      SetPlanner sets(model, footprint, *offered, asked);
      std::optional<Grouping> found = Search(sets, asked);
      bound = sets.Bound();
      if (found) return found;
      if (without == workers) break;
    }
  }
  return std::nullopt;
}

absl::Status Refusal(const model::Model& model, const model::ModelFootprint& footprint,
                     const std::vector<WorkerProfile>& workers, const PlanRequest& request) {
  PlanRequest fewer = request;
  fewer.min_replicas = 1;
  fewer.max_replicas = request.min_replicas - 1;
  double bound = 0;
  int64_t most = 0;
  while (fewer.max_replicas > 0 && most == 0) {
    fewer.min_replicas = fewer.max_replicas;
    if (SearchInSteps(model, footprint, workers, fewer, bound)) most = fewer.max_replicas;
    --fewer.max_replicas;
  }
  if (most == 0) return MakePlan(model, footprint, workers, request).status();
  int64_t offered = 0;
  for (const WorkerProfile& worker : workers) offered += worker.memory_bytes;
  const SetPlanner sets(model, footprint, workers, request);
  const PlanRequest share = ShareOfRequest(request, request.min_replicas);
  return absl::ResourceExhaustedError(absl::StrCat(
      request.min_replicas, " replicas do not fit: each needs ",
      base::FormatByteSize(sets.model_bytes()), " of weights, and beside them keys and values of ",
      share.context_tokens, " positions for each of its sequences, on workers of its own; ",
      workers.size(), workers.size() == 1 ? " worker offers " : " workers offer ",
      base::FormatByteSize(offered), " in all: say --replicas ", most, ", or add workers"));
}

// Where the workers of one replica are idle for the others, and why the rest are for all.
void ExplainIdle(const Groups& groups, std::vector<Plan>& plans) {
  for (size_t worker = 0; worker < plans.front().workers.size(); ++worker) {
    std::string reason;
    for (size_t i = 0; i < plans.size(); ++i) {
      const WorkerPlan& own = plans[i].workers[worker];
      if (!own.idle()) reason = absl::StrCat("it is in replica ", i + 1);
      if (own.idle() && !own.idle_reason.empty()) reason = own.idle_reason;
    }
    if (reason.empty()) {
      reason = absl::StrCat("it would add nothing to ", groups.size(), " replicas");
    }
    for (Plan& plan : plans) {
      if (plan.workers[worker].idle()) plan.workers[worker].idle_reason = reason;
    }
  }
}

}  // namespace

PlanRequest ShareOfRequest(PlanRequest request, int64_t replicas) {
  const int64_t all = request.max_sequences;
  const int64_t shares = request.sequence_shares > 0 ? request.sequence_shares : replicas;
  request.max_sequences = (all + shares - 1) / shares;
  // Of a step's outputs one is for each sequence.
  if (request.max_step_outputs > 0) {
    request.max_step_outputs =
        std::max<int64_t>(1, request.max_step_outputs - (all - request.max_sequences));
  }
  request.min_replicas = 1;
  request.max_replicas = 1;
  request.sequence_shares = 0;
  return request;
}

absl::StatusOr<Replicas> PlanReplicas(const model::Model& model,
                                      const model::ModelFootprint& footprint,
                                      const std::vector<WorkerProfile>& workers,
                                      const PlanRequest& request) {
  if (request.max_replicas == 1) {
    RENGA_ASSIGN_OR_RETURN(Plan plan,
                           MakePlan(model, footprint, workers, ShareOfRequest(request, 1)));
    Replicas one{.plans = {},
                 .steps_per_second = 1e3 / plan.slowest_ms,
                 .bound_steps_per_second = 0,
                 .exact = plan.exact};
    one.bound_steps_per_second = one.steps_per_second;
    one.plans.push_back(std::move(plan));
    return one;
  }
  RENGA_RETURN_IF_ERROR(CheckPlanInput(model, footprint, workers, request));
  Replicas made;
  const std::optional<Grouping> found =
      SearchInSteps(model, footprint, workers, request, made.bound_steps_per_second);
  if (!found) return Refusal(model, footprint, workers, request);
  const SetPlanner sets(model, footprint, workers, request);
  for (const std::vector<int>& group : found->groups) {
    std::optional<Plan> plan = sets.PlanOf(group, std::ssize(found->groups));
    if (!plan) return absl::InternalError("a replica that fitted does not fit any more");
    made.steps_per_second += 1e3 / plan->slowest_ms;
    made.plans.push_back(*std::move(plan));
  }
  std::stable_sort(made.plans.begin(), made.plans.end(),
                   [](const Plan& a, const Plan& b) { return a.stream_ms < b.stream_ms; });
  made.exact = found->exact && std::all_of(made.plans.begin(), made.plans.end(),
                                           [](const Plan& plan) { return plan.exact; });
  if (made.exact) made.bound_steps_per_second = made.steps_per_second;
  ExplainIdle(found->groups, made.plans);
  return made;
}

}  // namespace renga::partition

#include "partition/what_if.h"

#include <algorithm>
#include <optional>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "partition/plan_search.h"
#include "partition/planner.h"

namespace renga::partition {
namespace {

constexpr int kMaxNamed = 6;  // kinds of machines that are left out or added

class Explorer {
 public:
  Explorer(const model::Model& model, const model::ModelFootprint& footprint)
      : model_(model), footprint_(footprint) {}

  Change Try(std::string name, const std::vector<WorkerProfile>& workers,
             const PlanRequest& request) const {
    Change change{.name = std::move(name)};
    if (workers.empty()) return change;
    if (request.max_replicas > 1) {
      const auto replicas = PlanReplicas(model_, footprint_, workers, request);
      if (!replicas.ok()) return change;
      change.fits = true;
      change.ms = TimeToCompare(*replicas, request.objective);
      change.replicas = replicas->plans.size();
      return change;
    }
    const ShardCosts bytes(model_, footprint_, LimitsOf(request));
    const std::optional<Candidate> found = PlanSearch(bytes, workers, request).Run();
    if (!found) return change;
    change.fits = true;
    change.replicas = 1;
    change.ms =
        request.objective == Objective::kOneStream ? found->times.stream() : found->times.slowest;
    return change;
  }

 private:
  const model::Model& model_;
  const model::ModelFootprint& footprint_;
};

// The links that are left when one worker goes; the others move up.
LinkTable LinksWithout(const LinkTable& links, int worker) {
  LinkTable left{.default_link = links.default_link, .pairs = {}};
  for (LinkTable::Pair pair : links.pairs) {
    if (pair.from == worker || pair.to == worker) continue;
    pair.from -= pair.from > worker;
    pair.to -= pair.to > worker;
    left.pairs.push_back(pair);
  }
  return left;
}

// The newcomer is joined to everyone as `like` is.
LinkTable LinksWithOneLike(const LinkTable& links, int like, int newcomer) {
  LinkTable more = links;
  for (LinkTable::Pair pair : links.pairs) {
    if (pair.from != like && pair.to != like) continue;
    if (pair.from == like) pair.from = newcomer;
    if (pair.to == like) pair.to = newcomer;
    more.pairs.push_back(pair);
  }
  return more;
}

LinkTable TwiceAsFast(LinkTable links) {
  const auto faster = [](LinkProfile& link) {
    link.latency_us /= 2;
    link.bytes_per_second *= 2;
  };
  faster(links.default_link);
  for (LinkTable::Pair& pair : links.pairs) faster(pair.link);
  return links;
}

bool CostsNothing(const LinkTable& links) {
  return links.pairs.empty() && links.default_link == LinkProfile{};
}

bool Uses(const Replicas& replicas, int worker) {
  return std::any_of(replicas.plans.begin(), replicas.plans.end(),
                     [&](const Plan& plan) { return !plan.workers[worker].idle(); });
}

}  // namespace

double TimeToCompare(const Replicas& replicas, Objective objective) {
  if (objective == Objective::kOneStream) return replicas.plans.front().stream_ms;
  return 1e3 / replicas.steps_per_second;
}

absl::StatusOr<std::vector<Change>> ExploreChanges(const model::Model& model,
                                                   const model::ModelFootprint& footprint,
                                                   const std::vector<WorkerProfile>& workers,
                                                   const PlanRequest& asked, const Replicas& now) {
  RENGA_RETURN_IF_ERROR(CheckPlanInput(model, footprint, workers, asked));
  PlanRequest request = asked;
  request.previous.clear();  // what was placed last says nothing of other clusters
  const Explorer explorer(model, footprint);
  const MachineKinds kinds(workers, request.links);
  std::vector<Change> changes;
  for (int kind = 0; kind < std::min(kinds.count(), kMaxNamed); ++kind) {
    // The kind's last worker that the plan uses: the one it needs least.
    int used = -1;
    for (const int worker : kinds.WorkersOf(kind)) {
      if (Uses(now, worker)) used = worker;
    }
    if (used >= 0 && workers.size() > 1) {
      std::vector<WorkerProfile> fewer = workers;
      fewer.erase(fewer.begin() + used);
      PlanRequest without = request;
      without.links = LinksWithout(request.links, used);
      changes.push_back(
          explorer.Try(absl::StrCat("without '", workers[used].id, "'"), fewer, without));
    }
    const int like = kinds.WorkersOf(kind)[0];
    std::vector<WorkerProfile> more = workers;
    more.push_back(workers[like]);
    PlanRequest with = request;
    with.links = LinksWithOneLike(request.links, like, static_cast<int>(workers.size()));
    changes.push_back(
        explorer.Try(absl::StrCat("one more like '", workers[like].id, "'"), more, with));
  }
  if (!CostsNothing(request.links)) {
    PlanRequest faster = request;
    faster.links = TwiceAsFast(request.links);
    changes.push_back(explorer.Try("links twice as fast", workers, faster));
  }
  return changes;
}

}  // namespace renga::partition

#include "partition/what_if.h"

#include <algorithm>
#include <optional>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "partition/faster_link.h"
#include "partition/machine_kinds.h"
#include "partition/planner.h"
#include "partition/shard_costs.h"

namespace renga::partition {
namespace {

constexpr int kMaxNamed = 6;  // kinds of machines that are left out or added
// Links that are planned with anew. A search may take a second; the present plan says nearly always
// which link counts.
constexpr size_t kMaxLinksTried = 3;
constexpr double kWorthNaming = 0.995;

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
    const std::optional<Plan> found = FindPlan(model_, footprint_, workers, request);
    if (!found) return change;
    change.fits = true;
    change.replicas = 1;
    change.ms = request.objective == Objective::kOneStream ? found->stream_ms : found->slowest_ms;
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

LinkTable AllTwiceAsFast(LinkTable links) {
  links.default_link = TwiceAsFast(links.default_link);
  for (LinkTable::Pair& pair : links.pairs) pair.link = TwiceAsFast(pair.link);
  return links;
}

bool CostsNothing(const LinkTable& links) {
  return links.pairs.empty() && links.default_link == LinkProfile{};
}

bool Uses(const Replicas& replicas, int worker) {
  return std::any_of(replicas.plans.begin(), replicas.plans.end(),
                     [&](const Plan& plan) { return !plan.workers[worker].idle(); });
}

std::string NameOf(int machine, const std::vector<WorkerProfile>& workers) {
  return machine == kCoordinator ? "coordinator" : workers[machine].id;
}

// With the link that gives most. Also what the plan would take that is there: a search weighs other
// things too.
Change BestLink(const Explorer& explorer, const std::vector<UsedLink>& ranked,
                const std::vector<WorkerProfile>& workers, const PlanRequest& request,
                const Replicas& now) {
  const double ms_now = TimeToCompare(now, request.objective);
  Change best{.name = "any one link twice as fast",
              .fits = true,
              .ms = ms_now,
              .replicas = now.plans.size()};
  double least = kWorthNaming * ms_now;
  for (size_t i = 0; i < std::min(ranked.size(), kMaxLinksTried); ++i) {
    const auto& [one, other, ms] = ranked[i];
    if (ms > kWorthNaming * ms_now) break;
    LinkChange link{.one = NameOf(one, workers),
                    .other = NameOf(other, workers),
                    .now = LinkBetween(request.links, one, other),
                    .then = TwiceAsFast(LinkBetween(request.links, one, other))};
    PlanRequest faster = request;
    faster.links = WithFasterLink(request.links, one, other);
    Change change =
        explorer.Try(absl::StrCat("the link '", link.one, "' - '", link.other, "' twice as fast"),
                     workers, faster);
    if (!change.fits || ms < change.ms) {
      change.fits = true;
      change.ms = ms;
      change.replicas = now.plans.size();
    }
    if (change.ms >= least) continue;
    least = change.ms;
    change.link = std::move(link);
    best = std::move(change);
  }
  return best;
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
    faster.links = AllTwiceAsFast(request.links);
    changes.push_back(explorer.Try("links twice as fast", workers, faster));
    const ShardCosts bytes(model, footprint, LimitsOf(request));
    changes.push_back(
        BestLink(explorer, RankUsedLinks(bytes, workers, request, now), workers, request, now));
  }
  return changes;
}

}  // namespace renga::partition

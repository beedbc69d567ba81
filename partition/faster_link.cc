#include "partition/faster_link.h"

#include <algorithm>
#include <cmath>
#include <set>
#include <utility>

#include "partition/cost_model.h"
#include "partition/machine_kinds.h"

namespace renga::partition {
namespace {

// The links of a plan in the order of a step's way, each once.
class LinksOnTheWay {
 public:
  void Add(const Plan& plan) {
    int from = kCoordinator;
    if (plan.embedding_worker != kCoordinator) {
      Add(from, plan.embedding_worker);
      from = plan.embedding_worker;
    }
    for (const StagePlan& stage : plan.stages) {
      for (const StageMember& member : stage.members) {
        Add(from, member.worker);
        for (const StageMember& other : stage.members) Add(member.worker, other.worker);
      }
      from = stage.members[0].worker;
    }
    const std::vector<StageMember>& last = plan.stages.back().members;
    for (const HeadPlan& head : plan.heads) {
      const bool is_there = std::any_of(last.begin(), last.end(), [&](const StageMember& member) {
        return member.worker == head.worker;
      });
      if (!is_there) Add(from, head.worker);
      Add(head.worker, kCoordinator);
    }
  }
  std::vector<UsedLink> Take() { return std::move(links_); }

 private:
  void Add(int from, int to) {
    if (from == to || !seen_.insert(std::minmax(from, to)).second) return;
    links_.push_back({.one = from, .other = to});
  }

  std::set<std::pair<int, int>> seen_;
  std::vector<UsedLink> links_;
};

// Of plans as they are, over these links.
double TimeOver(const LinkTable& links, const ShardCosts& bytes,
                const std::vector<WorkerProfile>& workers, PlanRequest request,
                const Replicas& now) {
  request.links = links;
  const MachineKinds kinds(workers, request.links);
  const CostModel costs(bytes, kinds, request);
  double steps_per_ms = 0;
  for (const Plan& plan : now.plans) {
    PlanTimes times = costs.Price(plan.stages, plan.heads, 1, plan.embedding_worker);
    for (size_t i = 0; i < times.stages.size(); ++i) {
      times.stages[i].disk = plan.times.stages[i].disk;
    }
    if (request.objective == Objective::kOneStream) return times.stream();
    steps_per_ms += 1 / times.slowest;
  }
  return 1 / steps_per_ms;
}

}  // namespace

LinkProfile TwiceAsFast(LinkProfile link) {
  return {.latency_us = link.latency_us / 2, .bytes_per_second = link.bytes_per_second * 2};
}

LinkProfile LinkBetween(const LinkTable& links, int from, int to) {
  const auto named =
      std::find_if(links.pairs.rbegin(), links.pairs.rend(),
                   [&](const LinkTable::Pair& pair) { return pair.from == from && pair.to == to; });
  return named == links.pairs.rend() ? links.default_link : named->link;
}

LinkTable WithFasterLink(const LinkTable& links, int one, int other) {
  LinkTable faster = links;
  for (const auto& [from, to] : {std::pair(one, other), std::pair(other, one)}) {
    faster.pairs.push_back(
        {.from = from, .to = to, .link = TwiceAsFast(LinkBetween(links, from, to))});
  }
  return faster;
}

std::vector<UsedLink> RankUsedLinks(const ShardCosts& bytes,
                                    const std::vector<WorkerProfile>& workers,
                                    const PlanRequest& request, const Replicas& now) {
  LinksOnTheWay on_the_way;
  for (const Plan& plan : now.plans) on_the_way.Add(plan);
  std::vector<UsedLink> links = on_the_way.Take();
  for (UsedLink& link : links) {
    link.ms =
        TimeOver(WithFasterLink(request.links, link.one, link.other), bytes, workers, request, now);
  }
  // Sums of the same times in another order differ in their last bits.
  const auto nanoseconds = [](const UsedLink& link) { return std::round(link.ms * 1e6); };
  std::stable_sort(links.begin(), links.end(), [&](const UsedLink& a, const UsedLink& b) {
    return nanoseconds(a) < nanoseconds(b);
  });
  return links;
}

}  // namespace renga::partition

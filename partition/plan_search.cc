#include "partition/plan_search.h"

#include <algorithm>
#include <cstdint>
#include <utility>

#include "partition/head_split.h"

namespace renga::partition {
namespace {

using model::Range;

// With more workers than this, only a few orders are tried: each worker in the last place is not.
constexpr size_t kMaxWorkersTriedLast = 16;

// A worker is left idle when the slowest worker takes less than this part of the time without it.
// Measured speeds vary by tens of percent; whom the user let join should not drop out for that.
constexpr double kWorthDropping = 0.75;

// The last plan is kept when its slowest worker takes at most this much more than the best plan's.
constexpr double kWorthKeeping = 1.25;

// Sorts placed ranges and tells whether they cover [0, size), each number once.
template <typename Placed>
bool CoverExactly(std::vector<Placed>& placed, Range Placed::*range, int64_t size) {
  std::sort(placed.begin(), placed.end(),
            [&](const Placed& a, const Placed& b) { return (a.*range).begin < (b.*range).begin; });
  int64_t next = 0;
  for (const Placed& part : placed) {
    if ((part.*range).begin != next || (part.*range).empty()) return false;
    next = (part.*range).end;
  }
  return next == size;
}

bool Better(const Candidate& a, const Candidate& b) {
  return std::pair(a.slowest_ms, a.total_ms) < std::pair(b.slowest_ms, b.total_ms);
}

void KeepBetter(std::optional<Candidate> candidate, std::optional<Candidate>& best) {
  if (candidate && (!best || Better(*candidate, *best))) best = std::move(candidate);
}

}  // namespace

std::vector<model::ShardSpec> SpecsOf(const Candidate& candidate, size_t worker_count) {
  std::vector<model::ShardSpec> specs(worker_count);
  for (const StagePlan& stage : candidate.stages) specs[stage.worker].layers = stage.layers;
  for (const HeadPlan& head : candidate.heads) specs[head.worker].head_rows = head.rows;
  return specs;
}

PlanSearch::PlanSearch(const ShardCosts& costs, const std::vector<WorkerProfile>& workers,
                       const PlanRequest& request)
    : costs_(costs), workers_(workers), request_(request) {
  const int64_t smallest = costs.SmallestLayerBytes();
  for (size_t i = 0; i < workers.size(); ++i) {
    if (workers[i].memory_bytes >= smallest) usable_.push_back(static_cast<int>(i));
  }
  stage_limit_ = std::min<size_t>(workers.size(), costs.layer_count());
  if (request.max_workers > 0) stage_limit_ = std::min<size_t>(stage_limit_, request.max_workers);
}

std::optional<Candidate> PlanSearch::Run() const {
  std::optional<Candidate> best = BestOfAll();
  if (!best) return std::nullopt;
  std::optional<Candidate> previous = Previous();
  if (!previous || previous->stages.size() != best->stages.size() ||
      previous->heads.size() != best->heads.size() ||
      previous->slowest_ms > kWorthKeeping * best->slowest_ms) {
    return best;
  }
  previous->too_slow = std::move(best->too_slow);
  return previous;
}

// The request's previous plan, when it is whole, its workers are all here and it fits them.
std::optional<Candidate> PlanSearch::Previous() const {
  Candidate candidate;
  std::vector<bool> taken(workers_.size());
  for (const PreviousShard& shard : request_.previous) {
    if (shard.spec.layers.empty() && shard.spec.head_rows.empty()) continue;
    const auto found =
        std::find_if(workers_.begin(), workers_.end(),
                     [&](const WorkerProfile& worker) { return worker.id == shard.worker_id; });
    const size_t worker = found - workers_.begin();
    if (found == workers_.end() || taken[worker]) return std::nullopt;
    taken[worker] = true;
    if (!shard.spec.layers.empty()) {
      candidate.stages.push_back({static_cast<int>(worker), shard.spec.layers});
    }
    if (!shard.spec.head_rows.empty()) {
      candidate.heads.push_back({static_cast<int>(worker), shard.spec.head_rows});
    }
  }
  if (!CoverExactly(candidate.stages, &StagePlan::layers, costs_.layer_count()) ||
      !CoverExactly(candidate.heads, &HeadPlan::rows, costs_.vocab_size())) {
    return std::nullopt;
  }
  const auto used = std::count(taken.begin(), taken.end(), true);
  if (request_.max_workers > 0 && used > request_.max_workers) return std::nullopt;
  const std::vector<model::ShardSpec> specs = SpecsOf(candidate, workers_.size());
  for (size_t i = 0; i < specs.size(); ++i) {
    if (taken[i] && !costs_.Fits(workers_[i], specs[i])) return std::nullopt;
  }
  AddTimes(candidate);
  return candidate;
}

std::optional<Candidate> PlanSearch::BestOfAll() const {
  if (usable_.empty()) return std::nullopt;
  for (const HeadMode mode : {HeadMode::kFixedBlocks, HeadMode::kLeftOver}) {
    std::optional<Candidate> best = BestOverOrders(mode);
    if (!best) continue;
    return request_.use_every_worker ? best : WithoutSlowWorkers(*std::move(best), mode);
  }
  return std::nullopt;
}

std::optional<Candidate> PlanSearch::BestOverOrders(HeadMode mode) const {
  std::optional<Candidate> best;
  for (const std::vector<int>& order : Orders()) KeepBetter(Place(order, mode), best);
  if (best) return best;
  const Range last_rows = mode == HeadMode::kFixedBlocks && request_.head_blocks <= 1
                              ? Range{0, costs_.vocab_size()}
                              : Range{};
  const std::vector<int> order = FindFittingOrder(costs_, workers_, usable_, last_rows);
  if (order.empty() || order.size() > stage_limit_) return std::nullopt;
  return Place(order, mode);
}

std::optional<Candidate> PlanSearch::WithoutSlowWorkers(Candidate candidate, HeadMode mode) const {
  while (candidate.stages.size() > 1) {
    std::vector<int> order;
    for (const StagePlan& stage : candidate.stages) order.push_back(stage.worker);
    const auto slowest = std::min_element(order.begin(), order.end(), [this](int a, int b) {
      return workers_[a].bytes_per_second < workers_[b].bytes_per_second;
    });
    const int dropped = *slowest;
    order.erase(slowest);
    std::optional<Candidate> without = Place(order, mode);
    if (!without || without->slowest_ms >= kWorthDropping * candidate.slowest_ms) break;
    without->too_slow = std::move(candidate.too_slow);
    without->too_slow.push_back({dropped, candidate.slowest_ms});
    candidate = *std::move(without);
  }
  return candidate;
}

// The strongest of the usable workers when there are more than a plan may use, in the given order.
std::vector<int> PlanSearch::Strongest(bool by_memory) const {
  std::vector<int> chosen = usable_;
  if (chosen.size() <= stage_limit_) return chosen;
  std::stable_sort(chosen.begin(), chosen.end(), [&](int a, int b) {
    return by_memory ? workers_[a].memory_bytes > workers_[b].memory_bytes
                     : workers_[a].bytes_per_second > workers_[b].bytes_per_second;
  });
  chosen.resize(stage_limit_);
  std::sort(chosen.begin(), chosen.end());
  return chosen;
}

// Orders worth trying, the given one first so that it wins ties. Layers of a model are nearly
// alike, so the order matters little except for who is last and holds the head.
std::vector<std::vector<int>> PlanSearch::Orders() const {
  std::vector<std::vector<int>> orders;
  for (const bool by_memory : {false, true}) {
    const std::vector<int> given = Strongest(by_memory);
    orders.push_back(given);
    if (given.size() <= kMaxWorkersTriedLast) {
      for (size_t i = 0; i + 1 < given.size(); ++i) {
        std::vector<int> moved = given;
        std::rotate(moved.begin() + i, moved.begin() + i + 1, moved.end());
        orders.push_back(std::move(moved));
      }
    }
    for (const bool largest_last : {true, false}) {
      std::vector<int> sorted = given;
      std::stable_sort(sorted.begin(), sorted.end(), [&](int a, int b) {
        const int64_t x = workers_[a].memory_bytes;
        const int64_t y = workers_[b].memory_bytes;
        return largest_last ? x < y : x > y;
      });
      orders.push_back(std::move(sorted));
    }
    if (usable_.size() <= stage_limit_) break;  // both choices are the same
  }
  return orders;
}

std::optional<Candidate> PlanSearch::Place(const std::vector<int>& order, HeadMode mode) const {
  return mode == HeadMode::kFixedBlocks ? PlaceFixedBlocks(order) : PlaceLeftOver(order);
}

// Who may hold a head block: the stages from the last backwards, then workers that no layers were
// left for.
std::vector<int> PlanSearch::HeadHolders(const std::vector<int>& order) const {
  std::vector<int> holders(order.rbegin(), order.rend());
  const size_t limit = request_.max_workers > 0 ? request_.max_workers : workers_.size();
  for (size_t i = 0; i < workers_.size() && holders.size() < limit; ++i) {
    const int worker = static_cast<int>(i);
    if (std::find(order.begin(), order.end(), worker) != order.end()) continue;
    if (costs_.HeadRowCapacity(workers_[i], {}) > 0) holders.push_back(worker);
  }
  return holders;
}

std::optional<Candidate> PlanSearch::PlaceFixedBlocks(const std::vector<int>& order) const {
  std::vector<int> holders = HeadHolders(order);
  const int64_t wanted = std::min(std::max<int64_t>(request_.head_blocks, 1), costs_.vocab_size());
  holders.resize(std::min<size_t>(holders.size(), wanted));
  std::vector<HeadHolder> rows_for;
  for (const int worker : holders) {
    const bool is_stage = std::find(order.begin(), order.end(), worker) != order.end();
    const int64_t capacity =
        is_stage ? costs_.vocab_size() : costs_.HeadRowCapacity(workers_[worker], {});
    rows_for.push_back({workers_[worker].bytes_per_second, capacity});
  }
  const std::optional<std::vector<Range>> blocks = SplitRows(costs_.vocab_size(), rows_for);
  if (!blocks) return std::nullopt;

  Candidate candidate;
  Lineup lineup{.workers = order, .head_rows = std::vector<Range>(order.size())};
  for (size_t i = 0; i < holders.size(); ++i) {
    candidate.heads.push_back({holders[i], (*blocks)[i]});
    const auto stage = std::find(order.begin(), order.end(), holders[i]);
    if (stage != order.end()) lineup.head_rows[stage - order.begin()] = (*blocks)[i];
  }
  const std::optional<LayerSplit> split = SplitLayers(costs_, workers_, lineup);
  if (!split) return std::nullopt;
  for (size_t i = 0; i < order.size(); ++i) {
    candidate.stages.push_back({order[i], split->layers[i]});
  }
  AddTimes(candidate);
  return candidate;
}

std::optional<Candidate> PlanSearch::PlaceLeftOver(const std::vector<int>& order) const {
  const Lineup lineup{.workers = order, .head_rows = std::vector<Range>(order.size())};
  const std::optional<LayerSplit> split = SplitLayers(costs_, workers_, lineup);
  if (!split) return std::nullopt;
  Candidate candidate;
  for (size_t i = 0; i < order.size(); ++i) {
    candidate.stages.push_back({order[i], split->layers[i]});
  }

  std::vector<int> holders;
  std::vector<HeadHolder> rows_for;
  for (const int worker : HeadHolders(order)) {
    const auto stage = std::find(order.begin(), order.end(), worker);
    const Range layers = stage == order.end() ? Range{} : split->layers[stage - order.begin()];
    const int64_t capacity = costs_.HeadRowCapacity(workers_[worker], layers);
    if (capacity == 0) continue;
    holders.push_back(worker);
    rows_for.push_back({workers_[worker].bytes_per_second, capacity});
  }
  const size_t most = std::min<size_t>(holders.size(), costs_.vocab_size());
  size_t count = 1;
  if (request_.head_blocks > 0) count = std::min<size_t>(most, request_.head_blocks);
  for (; count <= most && count > 0; ++count) {
    const auto blocks =
        SplitRows(costs_.vocab_size(), {rows_for.begin(), rows_for.begin() + count});
    if (blocks) {
      for (size_t i = 0; i < count; ++i) candidate.heads.push_back({holders[i], (*blocks)[i]});
      AddTimes(candidate);
      return candidate;
    }
    if (request_.head_blocks > 0) break;
  }
  return std::nullopt;
}

void PlanSearch::AddTimes(Candidate& candidate) const {
  const std::vector<model::ShardSpec> specs = SpecsOf(candidate, workers_.size());
  for (size_t i = 0; i < specs.size(); ++i) {
    if (specs[i] == model::ShardSpec{}) continue;
    const double ms = costs_.Milliseconds(workers_[i], specs[i]);
    candidate.slowest_ms = std::max(candidate.slowest_ms, ms);
    candidate.total_ms += ms;
  }
}

}  // namespace renga::partition

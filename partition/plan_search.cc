#include "partition/plan_search.h"

#include <algorithm>
#include <cstdint>
#include <map>
#include <utility>

#include "model/layer_slice.h"
#include "partition/head_split.h"
#include "partition/local_search.h"
#include "partition/lower_bound.h"

namespace renga::partition {
namespace {

using model::Range;

// The last plan is kept when it takes at most this much more than the best plan.
constexpr double kWorthKeeping = 1.25;

// Times closer than this are the same, added up in another order.
constexpr double kNoDifference = 1e-9;

// Several head blocks are messages more per token: worth it for this part of the time.
constexpr double kWorthSpreading = 0.95;

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

// Adds a worker's shard to the stage of its layers. Whether stages make sense is checked later.
void AddMember(int worker, const model::ShardSpec& spec, std::vector<StagePlan>& stages) {
  auto stage = std::find_if(stages.begin(), stages.end(), [&](const StagePlan& other) {
    return other.layers == spec.layers && spec.slice.has_value();
  });
  if (stage == stages.end()) {
    stage = stages.insert(stages.end(), {.members = {}, .layers = spec.layers});
  }
  stage->members.push_back({.worker = worker, .slice = spec.slice});
}

// One whole member, or slices that cover the layers once; sorts these.
bool IsWhole(StagePlan& stage, const model::ModelConfig& config, const model::SliceUnits& units) {
  if (stage.members.size() == 1 && !stage.members[0].slice.has_value()) return true;
  std::vector<model::LayerSlice> slices;
  for (const StageMember& member : stage.members) {
    if (!member.slice.has_value()) return false;
  }
  std::sort(stage.members.begin(), stage.members.end(),
            [](const StageMember& a, const StageMember& b) {
              const auto key = [](const StageMember& member) {
                return std::pair(member.slice->heads.begin + member.slice->heads.end,
                                 member.slice->ff.begin + member.slice->ff.end);
              };
              return key(a) < key(b);
            });
  for (const StageMember& member : stage.members) slices.push_back(*member.slice);
  return model::CheckGroup(config, units, slices).ok();
}

size_t WorkersIn(const std::vector<StagePlan>& stages) {
  size_t workers = 0;
  for (const StagePlan& stage : stages) workers += stage.members.size();
  return workers;
}

}  // namespace

std::vector<model::ShardSpec> SpecsOf(const Candidate& candidate, size_t worker_count) {
  std::vector<model::ShardSpec> specs(worker_count);
  for (const StagePlan& stage : candidate.stages) {
    for (const StageMember& member : stage.members) {
      specs[member.worker].layers = stage.layers;
      specs[member.worker].slice = member.slice;
    }
  }
  for (const HeadPlan& head : candidate.heads) specs[head.worker].head_rows = head.rows;
  return specs;
}

PlanSearch::PlanSearch(const ShardCosts& bytes, const std::vector<WorkerProfile>& workers,
                       const PlanRequest& request)
    : bytes_(bytes),
      workers_(workers),
      request_(request),
      kinds_(workers, request.links),
      costs_(bytes, kinds_, request),
      options_(costs_) {}

size_t PlanSearch::WorkerLimit() const {
  return request_.max_workers > 0 ? std::min<size_t>(request_.max_workers, workers_.size())
                                  : workers_.size();
}

Value PlanSearch::ValueOf(const Candidate& candidate) const {
  return ValueFor(request_.objective, candidate.times.stream(), candidate.times.slowest);
}

bool PlanSearch::Fits() {
  any_fit_ = true;
  const bool fits = BestOfAll().has_value();
  any_fit_ = false;
  return fits;
}

std::optional<Candidate> PlanSearch::Run() {
  std::optional<Candidate> best = BestOfAll();
  if (!best) return std::nullopt;
  std::optional<Candidate> previous = Previous();
  if (!previous || WorkersIn(previous->stages) != WorkersIn(best->stages) ||
      previous->stages.size() != best->stages.size() ||
      previous->heads.size() != best->heads.size() ||
      ValueOf(*previous).first > kWorthKeeping * ValueOf(*best).first) {
    return best;
  }
  previous->found_ms = best->found_ms;
  previous->with_one_more = std::move(best->with_one_more);
  previous->bound_ms = best->bound_ms;
  previous->kept = ValueOf(*previous).first > (1 + kNoDifference) * ValueOf(*best).first;
  previous->exact = best->exact && !previous->kept;
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
      AddMember(static_cast<int>(worker), shard.spec, candidate.stages);
    }
    if (!shard.spec.head_rows.empty()) {
      candidate.heads.push_back({static_cast<int>(worker), shard.spec.head_rows});
    }
  }
  for (StagePlan& stage : candidate.stages) {
    if (!IsWhole(stage, bytes_.config(), bytes_.footprint().slice_units)) return std::nullopt;
  }
  // The near rows end where a block ends.
  const auto is_near = [&](const HeadPlan& head) {
    return head.rows.end == std::ssize(*request_.near_rows);
  };
  if (request_.near_rows != nullptr &&
      std::none_of(candidate.heads.begin(), candidate.heads.end(), is_near)) {
    return std::nullopt;
  }
  if (!CoverExactly(candidate.stages, &StagePlan::layers, bytes_.layer_count()) ||
      !CoverExactly(candidate.heads, &HeadPlan::rows, bytes_.vocab_size())) {
    return std::nullopt;
  }
  const auto used = std::count(taken.begin(), taken.end(), true);
  if (request_.max_workers > 0 && used > request_.max_workers) return std::nullopt;
  const std::vector<model::ShardSpec> specs = SpecsOf(candidate, workers_.size());
  for (size_t i = 0; i < specs.size(); ++i) {
    if (taken[i] && !bytes_.Fits(workers_[i], specs[i])) return std::nullopt;
  }
  candidate.times = costs_.Price(candidate.stages, candidate.heads);
  return candidate;
}

std::optional<Found> PlanSearch::Search(int64_t last_head_rows) {
  const SearchRules rules = {
      .objective = any_fit_ ? Objective::kOneStream : request_.objective,
      .max_workers = static_cast<int64_t>(WorkerLimit()) - without_layers_,
      .use_every_worker = request_.use_every_worker && !any_fit_ && without_layers_ == 0,
      // Layers with experts are not cut.
      .tensor_parallel = bytes_.config().has_experts() ? 1 : request_.tensor_parallel,
      .last_head_rows = last_head_rows,
      .worth_dropping = request_.worth_dropping,
      .any_fit = any_fit_,
  };
  std::optional<Found> found;
  if (CanSearchExactly(costs_)) found = SearchExactly(options_, rules);
  if (found && (found->exact || any_fit_)) {
    found->bound_ms = found->value.first;
    return found;
  }
  std::optional<Found> local = SearchLocally(options_, rules);
  if (local && (!found || Better(local->value, found->value))) found = std::move(local);
  if (found) found->bound_ms = LowerBound(costs_, rules);
  return found;
}

std::optional<Candidate> PlanSearch::BestOfAll() {
  if (request_.near_rows != nullptr) {
    if (std::optional<Candidate> divided = HeadNearAndFar()) return divided;
  }
  if (request_.head_blocks > 1 || (request_.head_blocks == 1 && request_.tensor_parallel != 1)) {
    std::optional<Candidate> forced = HeadInBlocks(request_.head_blocks);
    if (!forced) forced = HeadAfterLayers();
    if (forced) return forced;
  }
  std::optional<Candidate> best = HeadOnLastStage();
  if (best && (request_.head_blocks > 0 || any_fit_)) return best;
  // With many streams the last stage has fewer layers instead: the head waits for nobody.
  if (best && request_.objective == Objective::kManyStreams) return best;
  std::optional<Candidate> spread = HeadAfterLayers();
  if (!best || (spread && ValueOf(*spread).first < kWorthSpreading * ValueOf(*best).first)) {
    return spread;
  }
  return best;
}

// Stages with their workers' indices: of each kind in their order.
Candidate PlanSearch::ToCandidate(const Found& found, const LayerSplit& split) const {
  Candidate candidate;
  candidate.found_ms = found.value.first;
  candidate.with_one_more = found.with_one_more;
  candidate.bound_ms = found.bound_ms;
  candidate.exact = found.exact;
  candidate.given_up_ms = split.given_up_ms;
  candidate.prompts_gain = split.prompts_gain;
  std::vector<size_t> used(kinds_.count(), 0);
  for (size_t i = 0; i < split.options.size(); ++i) {
    const StageShape& shape = split.options[i]->shape;
    StagePlan& stage = candidate.stages.emplace_back();
    stage.layers = split.layers[i];
    for (size_t j = 0; j < shape.kinds.size(); ++j) {
      const int kind = shape.kinds[j];
      StageMember& member = stage.members.emplace_back();
      member.worker = kinds_.WorkersOf(kind)[used[kind]++];
      if (!shape.slices.empty()) member.slice = shape.slices[j];
    }
  }
  return candidate;
}

// The rows that stages hold beside their layers, from the last stage backwards.
void PlanSearch::AddHeadOfGroups(const LayerSplit& split, Candidate& candidate) const {
  int64_t next = candidate.heads.empty() ? 0 : candidate.heads.back().rows.end;
  for (size_t i = split.options.size(); i > 0; --i) {
    const std::vector<int64_t>& rows = split.options[i - 1]->head_rows;
    for (size_t j = 0; j < rows.size(); ++j) {
      if (rows[j] == 0) continue;
      candidate.heads.push_back(
          {candidate.stages[i - 1].members[j].worker, {next, next + rows[j]}});
      next += rows[j];
    }
  }
}

std::optional<Candidate> PlanSearch::HeadOnLastStage() {
  const std::optional<Found> found = Search(bytes_.vocab_size());
  if (!found) return std::nullopt;
  const std::optional<LayerSplit> split = SplitLayers(options_, found->lineup, request_.objective);
  if (!split) return std::nullopt;
  Candidate candidate = ToCandidate(*found, *split);
  AddHeadOfGroups(*split, candidate);
  candidate.times = costs_.Price(candidate.stages, candidate.heads);
  return candidate;
}

// Who may hold a head block: the stages from the last backwards, then workers that no layers were
// left for.
std::vector<int> PlanSearch::HeadHolders(const Candidate& candidate) const {
  std::vector<int> holders;
  for (auto stage = candidate.stages.rbegin(); stage != candidate.stages.rend(); ++stage) {
    for (const StageMember& member : stage->members) holders.push_back(member.worker);
  }
  const std::vector<int> with_layers = holders;
  for (size_t i = 0; i < workers_.size() && holders.size() < WorkerLimit(); ++i) {
    const int worker = static_cast<int>(i);
    if (std::find(with_layers.begin(), with_layers.end(), worker) != with_layers.end()) continue;
    if (bytes_.HeadRowCapacity(workers_[i], {}) > 0) holders.push_back(worker);
  }
  return holders;
}

// A wanted number of blocks, in proportion to speed, decided before the layers.
std::optional<Candidate> PlanSearch::HeadInBlocks(int64_t count) {
  std::optional<Candidate> best;
  for (const int64_t last_rows : {(bytes_.vocab_size() + count - 1) / count, int64_t{0}}) {
    const std::optional<Found> found = Search(last_rows);
    if (!found) continue;
    std::optional<Candidate> candidate = PlaceBlocks(*found, count);
    if (candidate && (!best || Better(ValueOf(*candidate), ValueOf(*best)))) {
      best = std::move(candidate);
    }
  }
  return best;
}

std::optional<Candidate> PlanSearch::PlaceBlocks(const Found& found, int64_t count) {
  Lineup lineup = found.lineup;
  lineup.back().head_rows = 0;
  const std::optional<LayerSplit> without = SplitLayers(options_, lineup, request_.objective);
  if (!without) return std::nullopt;
  const Candidate layers = ToCandidate(found, *without);
  std::vector<int> holders = HeadHolders(layers);
  holders.resize(std::min({static_cast<int64_t>(holders.size()), count, bytes_.vocab_size()}));
  const size_t with_layers = std::min(holders.size(), WorkersIn(layers.stages));
  std::vector<HeadHolder> rows_for;
  for (size_t i = 0; i < holders.size(); ++i) {
    rows_for.push_back({.ms_per_row = costs_.HeadMsPerRow(kinds_.KindOf(holders[i])),
                        .fixed_ms = 0,
                        .row_capacity = i < with_layers
                                            ? bytes_.vocab_size()
                                            : bytes_.HeadRowCapacity(workers_[holders[i]], {})});
  }
  const std::optional<std::vector<int64_t>> rows = SplitRowsOverAll(bytes_.vocab_size(), rows_for);
  if (!rows) return std::nullopt;
  for (size_t i = 0; i < with_layers; ++i) {
    size_t stage = 0;
    while (std::none_of(layers.stages[stage].members.begin(), layers.stages[stage].members.end(),
                        [&](const StageMember& member) { return member.worker == holders[i]; })) {
      ++stage;
    }
    lineup[stage].head_rows += (*rows)[i];
  }
  const std::optional<LayerSplit> split = SplitLayers(options_, lineup, request_.objective);
  if (!split) return std::nullopt;
  Candidate candidate = ToCandidate(found, *split);
  AddHeadOfGroups(*split, candidate);
  for (size_t i = with_layers; i < holders.size(); ++i) {
    const int64_t next = candidate.heads.empty() ? 0 : candidate.heads.back().rows.end;
    candidate.heads.push_back({holders[i], {next, next + (*rows)[i]}});
  }
  candidate.times = costs_.Price(candidate.stages, candidate.heads);
  return candidate;
}

// Near rows on the last stage, the others where no layers are, if layers have room without those
// workers; a stage there would put its link into every token.
std::optional<Candidate> PlanSearch::HeadNearAndFar() {
  const auto near = std::ssize(*request_.near_rows);
  const int64_t blocks = std::max<int64_t>(request_.head_blocks, 2) - 1;
  const int64_t spare = std::min(blocks, static_cast<int64_t>(WorkerLimit()) - 1);
  for (const int64_t left_over : {spare, int64_t{0}}) {
    without_layers_ = left_over;
    const std::optional<Found> found = Search(near);
    without_layers_ = 0;
    if (!found) continue;
    if (std::optional<Candidate> candidate = AddFarRows(*found, near, blocks)) return candidate;
  }
  return std::nullopt;
}

std::optional<Candidate> PlanSearch::AddFarRows(const Found& found, int64_t near, int64_t blocks) {
  const std::optional<LayerSplit> split = SplitLayers(options_, found.lineup, request_.objective);
  if (!split) return std::nullopt;
  Candidate candidate = ToCandidate(found, *split);
  AddHeadOfGroups(*split, candidate);
  const std::vector<model::ShardSpec> specs = SpecsOf(candidate, workers_.size());
  const auto capacity = [&](int worker) {
    return bytes_.HeadRowCapacity(workers_[worker], specs[worker]);
  };
  std::vector<int> holders = HeadHolders(candidate);
  std::erase_if(holders, [&](int worker) {
    return !specs[worker].head_rows.empty() || capacity(worker) == 0;
  });
  std::stable_partition(holders.begin(), holders.end(),
                        [&](int worker) { return specs[worker].layers.empty(); });
  holders.resize(std::min(std::ssize(holders), blocks));
  std::vector<HeadHolder> rows_for;
  for (const int worker : holders) {
    rows_for.push_back({.ms_per_row = costs_.HeadMsPerRow(kinds_.KindOf(worker)),
                        .fixed_ms = 0,
                        .row_capacity = capacity(worker)});
  }
  const auto rows = SplitRowsOverAll(bytes_.vocab_size() - near, rows_for);
  if (!rows || rows->empty()) return std::nullopt;
  int64_t next = near;
  for (size_t i = 0; i < holders.size(); ++i) {
    candidate.heads.push_back({holders[i], {next, next + (*rows)[i]}});
    next += (*rows)[i];
  }
  candidate.times = costs_.Price(candidate.stages, candidate.heads);
  return candidate;
}

// Layers first, then the rows where memory is left, in as many blocks as make it fastest.
std::optional<Candidate> PlanSearch::HeadAfterLayers() {
  const std::optional<Found> found = Search(0);
  if (!found) return std::nullopt;
  const std::optional<LayerSplit> split = SplitLayers(options_, found->lineup, request_.objective);
  if (!split) return std::nullopt;
  Candidate candidate = ToCandidate(*found, *split);
  if (!AddHeadByTime(candidate)) return std::nullopt;
  return candidate;
}

bool PlanSearch::AddHeadByTime(Candidate& candidate) const {
  const std::vector<model::ShardSpec> specs = SpecsOf(candidate, workers_.size());
  const PlanTimes times = costs_.Price(candidate.stages, {});
  std::map<int, double> busy;
  for (size_t i = 0; i < candidate.stages.size(); ++i) {
    for (const StageMember& member : candidate.stages[i].members) {
      busy[member.worker] = times.stages[i].compute + times.stages[i].sums;
    }
  }
  const int last = candidate.stages.back().members[0].worker;
  std::vector<int> holders = HeadHolders(candidate);
  std::erase_if(holders, [&](int worker) {
    return bytes_.HeadRowCapacity(workers_[worker], specs[worker]) == 0;
  });
  std::vector<HeadHolder> rows_for;
  for (size_t i = 0; i < holders.size(); ++i) {
    const int kind = kinds_.KindOf(holders[i]);
    HeadHolder holder{
        .ms_per_row = costs_.HeadMsPerRow(kind),
        .fixed_ms = 0,
        .row_capacity = bytes_.HeadRowCapacity(workers_[holders[i]], specs[holders[i]])};
    if (request_.objective == Objective::kManyStreams) {
      holder.fixed_ms = busy[holders[i]];
    } else {
      const double way = specs[holders[i]].layers == candidate.stages.back().layers
                             ? 0
                             : costs_.HopMs(kinds_.KindOf(last), {&kind, 1});
      holder.fixed_ms = way + costs_.ReturnMs(kind);
    }
    rows_for.push_back(holder);
  }
  if (request_.head_blocks > 0) {
    rows_for.resize(std::min<size_t>(rows_for.size(), request_.head_blocks));
  }
  const std::optional<std::vector<int64_t>> rows = SplitRows(bytes_.vocab_size(), rows_for);
  if (!rows) return false;
  int64_t next = 0;
  for (size_t i = 0; i < rows->size(); ++i) {
    if ((*rows)[i] == 0) continue;
    candidate.heads.push_back({holders[i], {next, next + (*rows)[i]}});
    next += (*rows)[i];
  }
  candidate.times = costs_.Price(candidate.stages, candidate.heads);
  return true;
}

}  // namespace renga::partition

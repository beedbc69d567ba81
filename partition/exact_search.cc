#include "partition/exact_search.h"

#include <algorithm>
#include <numeric>
#include <utility>

namespace renga::partition {
namespace {

// Enough for twelve different machines with links of their own and 80 layers: half a second.
constexpr int64_t kMaxCells = 4'200'000;
// Pairs of (workers used, group to add) above which groups are limited to workers of like speed.
constexpr int64_t kMaxGroupSteps = 400'000;

// Kinds whose messages take equally long to everyone: who was last matters no further.
std::vector<int> SenderClasses(const MachineKinds& kinds, int& class_count) {
  std::vector<int> classes(kinds.count(), -1);
  class_count = 0;
  const auto alike = [&](int a, int b) {
    for (int to = 0; to < kinds.count(); ++to) {
      if (kinds.Link(a, to) != kinds.Link(b, to)) return false;
    }
    return true;
  };
  for (int kind = 0; kind < kinds.count(); ++kind) {
    for (int other = 0; other < kind && classes[kind] < 0; ++other) {
      if (alike(other, kind)) classes[kind] = classes[other];
    }
    if (classes[kind] < 0) classes[kind] = class_count++;
  }
  return classes;
}

int64_t SetCount(const MachineKinds& kinds) {
  int64_t sets = 1;
  for (int kind = 0; kind < kinds.count(); ++kind) {
    sets *= static_cast<int64_t>(kinds.WorkersOf(kind).size()) + 1;
    if (sets > kMaxCells) break;
  }
  return sets;
}

// Workers that may be added as one stage.
struct Team {
  std::vector<int> kinds;   // ascending
  std::vector<int> counts;  // by kind
  int64_t step = 0;         // from a set without them to the set with them
  const std::vector<StageOption>* options = nullptr;
  const std::vector<StageOption>* last_options = nullptr;  // with the head rows
  int sender_class = 0;
};

// The best value of each set of workers, numbered by the counts of each kind as digits.
class CountingSearch {
 public:
  CountingSearch(StageOptions& options, const SearchRules& rules)
      : options_(options), costs_(options.costs()), kinds_(costs_.kinds()), rules_(rules) {
    layers_ = costs_.bytes().layer_count();
    classes_ = SenderClasses(kinds_, class_count_);
    int64_t place = 1;
    for (int kind = 0; kind < kinds_.count(); ++kind) {
      places_.push_back(place);
      place *= static_cast<int64_t>(kinds_.WorkersOf(kind).size()) + 1;
    }
    sets_ = place;
    AddTeams();
  }

  std::optional<Found> Run() {
    return rules_.objective == Objective::kOneStream ? RunOneStream() : RunManyStreams();
  }

 private:
  struct Cell {
    double value = kNever;
    const StageOption* option = nullptr;
    int32_t team = -1;
    int32_t begin = -1;
    int32_t from_class = 0;
  };
  // Best way to end with this set.
  using Final = Cell;

  void AddTeams();
  void AddTeamsOf(int64_t size, std::vector<int>& counts, int kind);
  void AddTeam(const std::vector<int>& counts);
  void AddTeamsOfLikeSpeed(int64_t size);

  int64_t WorkersIn(int64_t set) const;
  bool CanAdd(int64_t set, const Team& team) const;
  Cell* CellsOf(int64_t set, int sender_class) {
    return &cells_[(set * class_count_ + sender_class) * (layers_ + 1)];
  }

  // One pass over all sets. Sums of times where no worker is busy for longer than `cap`, or, with
  // `slowest`, the time of the slowest.
  void Fill(bool slowest, double cap);
  void Extend(int64_t set, const Team& team, bool slowest, double cap);
  void ExtendSums(const Team& team, const StageOption& option, double cap, Cell* target);
  void ExtendSlowest(const Team& team, const StageOption& option, Cell* target);
  void End(int64_t set, const Team& team, bool slowest, double cap);
  bool Reach(int64_t set, const Team& team, bool slowest, double cap);

  std::optional<Found> RunOneStream();
  std::optional<Found> RunManyStreams();
  Found Describe(int64_t set) const;
  std::vector<double> WithOneMore(int64_t set, const std::vector<Final>& finals) const;
  int64_t BestSet(const std::vector<Final>& finals, int64_t workers) const;
  std::vector<double> BestByWorkers(const std::vector<Final>& finals) const;

  StageOptions& options_;
  const CostModel& costs_;
  const MachineKinds& kinds_;
  const SearchRules& rules_;
  int64_t layers_ = 0;
  int64_t sets_ = 0;
  int class_count_ = 0;
  std::vector<int> classes_;
  std::vector<int64_t> places_;
  std::vector<Team> teams_;
  bool every_team_ = true;
  std::vector<Cell> cells_;    // (sets, classes, layers + 1)
  std::vector<Final> finals_;  // (sets)
  // What Reach found: the best value before the team, its hop included, and from which class.
  std::vector<double> before_;
  std::vector<int32_t> before_class_;
  int64_t first_before_ = 0;     // the least number of layers of which before_ is finite
  std::vector<int64_t> window_;  // of ExtendSums, kept for its memory
};

int64_t CountingSearch::WorkersIn(int64_t set) const {
  int64_t workers = 0;
  for (int kind = 0; kind < kinds_.count(); ++kind) {
    workers += set / places_[kind] % (static_cast<int64_t>(kinds_.WorkersOf(kind).size()) + 1);
  }
  return workers;
}

bool CountingSearch::CanAdd(int64_t set, const Team& team) const {
  for (const int kind : team.kinds) {
    const auto size = static_cast<int64_t>(kinds_.WorkersOf(kind).size());
    if (set / places_[kind] % (size + 1) + team.counts[kind] > size) return false;
  }
  return true;
}

void CountingSearch::AddTeam(const std::vector<int>& counts) {
  Team team{.kinds = {}, .counts = counts};
  for (int kind = 0; kind < kinds_.count(); ++kind) {
    team.kinds.insert(team.kinds.end(), counts[kind], kind);
    team.step += counts[kind] * places_[kind];
  }
  team.options = &options_.Of(team.kinds, 0);
  team.last_options = &options_.Of(team.kinds, rules_.last_head_rows);
  if (team.options->empty()) return;
  team.sender_class = classes_[team.options->front().shape.kinds[0]];
  teams_.push_back(std::move(team));
}

// Every choice of `size` workers of kinds from `kind` on, beside those counted already.
void CountingSearch::AddTeamsOf(int64_t size, std::vector<int>& counts, int kind) {
  if (size == 0) {
    AddTeam(counts);
    return;
  }
  if (kind == kinds_.count()) return;
  const auto most = std::min<int64_t>(size, static_cast<int64_t>(kinds_.WorkersOf(kind).size()));
  for (int64_t count = 0; count <= most; ++count) {
    counts[kind] = static_cast<int>(count);
    AddTeamsOf(size - count, counts, kind + 1);
  }
  counts[kind] = 0;
}

// Runs of neighbours when the workers are sorted by speed.
void CountingSearch::AddTeamsOfLikeSpeed(int64_t size) {
  std::vector<int> sorted;
  for (int kind = 0; kind < kinds_.count(); ++kind) {
    sorted.insert(sorted.end(), kinds_.WorkersOf(kind).size(), kind);
  }
  std::stable_sort(sorted.begin(), sorted.end(), [this](int a, int b) {
    return costs_.LayerMsPerByte(a) < costs_.LayerMsPerByte(b);
  });
  std::vector<int> previous;
  for (size_t i = 0; i + size <= sorted.size(); ++i) {
    std::vector<int> counts(kinds_.count(), 0);
    for (int64_t j = 0; j < size; ++j) ++counts[sorted[i + j]];
    if (counts != previous) AddTeam(counts);
    previous = counts;
  }
}

void CountingSearch::AddTeams() {
  const int64_t wanted = rules_.tensor_parallel;
  int64_t workers = 0;
  for (int kind = 0; kind < kinds_.count(); ++kind) workers += kinds_.WorkersOf(kind).size();
  const int64_t smallest = wanted > 0 ? wanted : 1;
  const int64_t largest = std::min({wanted > 0 ? wanted : kMaxGroup, workers, rules_.max_workers});
  // Teams are sets too: there are at most as many.
  every_team_ = largest <= 1 || sets_ * sets_ <= kMaxGroupSteps;
  for (int64_t size = smallest; size <= largest; ++size) {
    std::vector<int> counts(kinds_.count(), 0);
    if (size == 1 || every_team_) {
      AddTeamsOf(size, counts, 0);
    } else {
      AddTeamsOfLikeSpeed(size);
    }
  }
}

// Fills before_: the way to each number of layers done by `set`, and to the team from there.
bool CountingSearch::Reach(int64_t set, const Team& team, bool slowest, double cap) {
  const std::vector<int>& to = team.options->front().shape.kinds;
  before_.assign(layers_ + 1, kNever);
  before_class_.assign(layers_ + 1, 0);
  if (set == 0) {
    const double transfer = costs_.TransferMs(kCoordinator, to);
    if (transfer > cap) return false;
    before_[0] = slowest ? transfer : costs_.HopMs(kCoordinator, to);
    first_before_ = 0;
    return true;
  }
  bool any = false;
  for (int from_class = 0; from_class < class_count_; ++from_class) {
    const auto sender = std::find(classes_.begin(), classes_.end(), from_class) - classes_.begin();
    const double transfer = costs_.TransferMs(static_cast<int>(sender), to);
    const double hop = costs_.HopMs(static_cast<int>(sender), to);
    if (transfer > cap) continue;
    const Cell* cells = CellsOf(set, from_class);
    for (int64_t layer = 1; layer < layers_; ++layer) {
      if (cells[layer].value == kNever) continue;
      const double value =
          slowest ? std::max(cells[layer].value, transfer) : cells[layer].value + hop;
      if (value >= before_[layer]) continue;
      before_[layer] = value;
      before_class_[layer] = from_class;
      first_before_ = any ? std::min(first_before_, layer) : layer;
      any = true;
    }
  }
  return any;
}

// A sliding minimum over where the stage begins: O(layers).
void CountingSearch::ExtendSums(const Team& team, const StageOption& option, double cap,
                                Cell* target) {
  const auto key = [&](int64_t begin) { return before_[begin] - option.before_ms[begin]; };
  window_.clear();  // begins with ascending keys, from `front` on, the least in front
  size_t front = 0;
  int64_t earliest = 0;
  for (int64_t end = first_before_ + 1; end <= layers_; ++end) {
    if (before_[end - 1] < kNever) {
      while (window_.size() > front && key(window_.back()) > key(end - 1)) window_.pop_back();
      window_.push_back(end - 1);
    }
    earliest = std::max(earliest, option.earliest[end]);
    while (earliest < end && option.BusyMs(earliest, end) > cap) ++earliest;
    while (front < window_.size() && window_[front] < earliest) ++front;
    if (front == window_.size()) continue;
    const int64_t begin = window_[front];
    const double value = before_[begin] + option.LayersMs(begin, end);
    if (value * (1 + kSameTime) >= target[end].value) continue;
    target[end] = {.value = value,
                   .option = &option,
                   .team = static_cast<int32_t>(&team - teams_.data()),
                   .begin = static_cast<int32_t>(begin),
                   .from_class = before_class_[begin]};
  }
}

void CountingSearch::ExtendSlowest(const Team& team, const StageOption& option, Cell* target) {
  for (int64_t end = 1; end <= layers_; ++end) {
    for (int64_t begin = end - 1; begin >= option.earliest[end]; --begin) {
      const double busy = option.BusyMs(begin, end);
      // It only grows with the layers.
      if (busy * (1 + kSameTime) >= target[end].value) break;
      const double value = std::max(before_[begin], busy);
      if (value * (1 + kSameTime) >= target[end].value) continue;
      target[end] = {.value = value,
                     .option = &option,
                     .team = static_cast<int32_t>(&team - teams_.data()),
                     .begin = static_cast<int32_t>(begin),
                     .from_class = before_class_[begin]};
    }
  }
}

void CountingSearch::Extend(int64_t set, const Team& team, bool slowest, double cap) {
  Cell* target = CellsOf(set + team.step, team.sender_class);
  for (const StageOption& option : *team.options) {
    if (slowest) {
      ExtendSlowest(team, option, target);
    } else {
      ExtendSums(team, option, cap, target);
    }
  }
}

// The team as the last stage, with the head.
void CountingSearch::End(int64_t set, const Team& team, bool slowest, double cap) {
  Final& target = finals_[set + team.step];
  for (const StageOption& option : *team.last_options) {
    const double back =
        rules_.last_head_rows > 0 ? option.head_ms + ReturnMs(costs_, option.shape.kinds) : 0;
    for (int64_t begin = layers_ - 1; begin >= option.earliest[layers_]; --begin) {
      const double busy = option.BusyMs(begin, layers_);
      if (busy > cap) break;
      const double value = slowest ? std::max(before_[begin], busy)
                                   : before_[begin] + option.LayersMs(begin, layers_) + back;
      if (value * (1 + kSameTime) >= target.value) continue;
      target = {.value = value,
                .option = &option,
                .team = static_cast<int32_t>(&team - teams_.data()),
                .begin = static_cast<int32_t>(begin),
                .from_class = before_class_[begin]};
    }
  }
}

void CountingSearch::Fill(bool slowest, double cap) {
  cells_.assign(sets_ * class_count_ * (layers_ + 1), {});
  finals_.assign(sets_, {});
  const int64_t most = std::min(rules_.max_workers, layers_ * kMaxGroup);
  // A larger set has a larger number. Ties keep the first: the last kinds come last.
  for (int64_t set = 0; set < sets_; ++set) {
    const int64_t used = WorkersIn(set);
    for (const Team& team : teams_) {
      const auto size = static_cast<int64_t>(team.kinds.size());
      if (used + size > most || !CanAdd(set, team)) continue;
      if (!Reach(set, team, slowest, cap)) continue;
      Extend(set, team, slowest, cap);
      End(set, team, slowest, cap);
    }
  }
}

std::vector<double> CountingSearch::BestByWorkers(const std::vector<Final>& finals) const {
  std::vector<double> best;
  for (int64_t set = 0; set < sets_; ++set) {
    const size_t workers = WorkersIn(set);
    if (workers >= best.size()) best.resize(workers + 1, kNever);
    best[workers] = std::min(best[workers], finals[set].value);
  }
  return best;
}

// The best set with so many workers; with any number for -1.
int64_t CountingSearch::BestSet(const std::vector<Final>& finals, int64_t workers) const {
  int64_t best = -1;
  for (int64_t set = 0; set < sets_; ++set) {
    if (finals[set].value == kNever || (workers >= 0 && WorkersIn(set) != workers)) continue;
    if (best < 0 || finals[set].value * (1 + kSameTime) < finals[best].value) best = set;
  }
  return best;
}

std::vector<double> CountingSearch::WithOneMore(int64_t chosen,
                                                const std::vector<Final>& finals) const {
  std::vector<double> with(kinds_.count(), kNever);
  const auto count_in = [this](int64_t set, int kind) {
    return set / places_[kind] % (static_cast<int64_t>(kinds_.WorkersOf(kind).size()) + 1);
  };
  for (int64_t set = 0; set < sets_; ++set) {
    bool with_all_chosen = finals[set].value < kNever;
    for (int kind = 0; kind < kinds_.count() && with_all_chosen; ++kind) {
      with_all_chosen = count_in(set, kind) >= count_in(chosen, kind);
    }
    for (int kind = 0; kind < kinds_.count() && with_all_chosen; ++kind) {
      if (count_in(set, kind) == count_in(chosen, kind)) continue;
      with[kind] = std::min(with[kind], finals[set].value);
    }
  }
  return with;
}

// The lineup behind finals_[set], from the last stage backwards.
Found CountingSearch::Describe(int64_t set) const {
  Found found;
  found.exact = every_team_;
  const Final& final = finals_[set];
  Cell cell = final;
  for (bool last = true;; last = false) {
    const Team& team = teams_[cell.team];
    found.lineup.push_back({.kinds = team.kinds, .head_rows = last ? rules_.last_head_rows : 0});
    set -= team.step;
    if (set == 0) break;
    cell = cells_[(set * class_count_ + cell.from_class) * (layers_ + 1) + cell.begin];
  }
  std::reverse(found.lineup.begin(), found.lineup.end());
  return found;
}

std::optional<Found> CountingSearch::RunOneStream() {
  Fill(/*slowest=*/false, kNever);
  const std::vector<double> by_workers = BestByWorkers(finals_);
  int64_t workers = -1;
  if (rules_.use_every_worker) {
    for (size_t i = 0; i < by_workers.size(); ++i) {
      if (by_workers[i] < kNever) workers = static_cast<int64_t>(i);
    }
  }
  const int64_t set = BestSet(finals_, workers);
  if (set < 0) return std::nullopt;
  Found found = Describe(set);
  found.value.first = finals_[set].value;
  found.with_one_more = WithOneMore(set, finals_);
  return found;
}

std::optional<Found> CountingSearch::RunManyStreams() {
  Fill(/*slowest=*/true, kNever);
  const std::vector<double> by_workers = BestByWorkers(finals_);
  const double least =
      by_workers.empty() ? kNever : *std::min_element(by_workers.begin(), by_workers.end());
  if (least == kNever) return std::nullopt;
  // The most workers with which nothing much is lost.
  const double worth_dropping =
      rules_.use_every_worker ? 0 : rules_.worth_dropping * (1 - kSameTime);
  int64_t workers = 0;
  for (size_t i = 0; i < by_workers.size(); ++i) {
    if (by_workers[i] < kNever && by_workers[i] * worth_dropping <= least) {
      workers = static_cast<int64_t>(i);
    }
  }
  const double slowest = by_workers[workers];
  // Where a worker that gains nothing may be left out, the second time decides.
  if (worth_dropping >= 1 - 2 * kSameTime) workers = -1;
  const std::vector<Final> finals = finals_;
  Fill(/*slowest=*/false, slowest * (1 + kSameTime));
  const int64_t set = BestSet(finals_, workers);
  if (set < 0) return std::nullopt;
  Found found = Describe(set);
  found.value = {slowest, finals_[set].value};
  found.with_one_more = WithOneMore(set, finals);
  return found;
}

}  // namespace

bool CanSearchExactly(const CostModel& costs) {
  int class_count = 0;
  SenderClasses(costs.kinds(), class_count);
  return SetCount(costs.kinds()) * class_count * (costs.bytes().layer_count() + 1) <= kMaxCells;
}

std::optional<Found> SearchExactly(StageOptions& options, const SearchRules& rules) {
  return CountingSearch(options, rules).Run();
}

}  // namespace renga::partition

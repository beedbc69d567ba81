#include "partition/local_search.h"

#include <algorithm>
#include <functional>
#include <utility>

namespace renga::partition {
namespace {

// Each takes some 20 to 50 microseconds with 80 layers.
constexpr int64_t kMaxLineups = 3'000;

using Kinds = std::vector<int>;

class LocalSearch {
 public:
  LocalSearch(StageOptions& options, const SearchRules& rules)
      : options_(options), kinds_(options.costs().kinds()), rules_(rules) {
    for (int kind = 0; kind < kinds_.count(); ++kind) {
      free_.push_back(static_cast<int>(kinds_.WorkersOf(kind).size()));
    }
  }

  std::optional<Found> Run();

 private:
  // Lineups as their stages' kinds; the head rows belong to whichever is last.
  using Stages = std::vector<Kinds>;
  struct Point {
    Stages stages;
    Value value;
  };

  std::optional<Value> Measure(const Stages& stages);
  Lineup ToLineup(const Stages& stages) const;
  Kinds Sorted(bool by_memory) const;
  std::vector<Stages> Starts() const;
  void Improve(Point& point);
  bool TryAll(Point& point, const std::vector<Stages>& neighbours);
  std::vector<int> Unused(const Stages& stages) const;

  void AddWithout(const Stages& stages, std::vector<Stages>& out) const;
  void AddWith(const Stages& stages, std::vector<Stages>& out) const;
  void AddExchanged(const Stages& stages, std::vector<Stages>& out) const;
  void AddRegrouped(const Stages& stages, std::vector<Stages>& out) const;
  std::vector<double> WithOneMore(const Point& best);

  StageOptions& options_;
  const MachineKinds& kinds_;
  const SearchRules& rules_;
  std::vector<int> free_;  // workers of each kind
  int64_t tried_ = 0;
};

Lineup LocalSearch::ToLineup(const Stages& stages) const {
  Lineup lineup;
  for (const Kinds& kinds : stages) lineup.push_back({.kinds = kinds, .head_rows = 0});
  lineup.back().head_rows = rules_.last_head_rows;
  return lineup;
}

std::optional<Value> LocalSearch::Measure(const Stages& stages) {
  if (stages.empty() || tried_ >= kMaxLineups) return std::nullopt;
  int64_t workers = 0;
  for (const Kinds& kinds : stages) workers += static_cast<int64_t>(kinds.size());
  if (workers > rules_.max_workers) return std::nullopt;
  ++tried_;
  return MeasureLineup(options_, ToLineup(stages), rules_.objective);
}

// Workers, the fastest or the largest first.
Kinds LocalSearch::Sorted(bool by_memory) const {
  Kinds sorted;
  for (int kind = 0; kind < kinds_.count(); ++kind) {
    // Who has no room for a layer alone can still be in a group.
    sorted.insert(sorted.end(), kinds_.WorkersOf(kind).size(), kind);
  }
  std::stable_sort(sorted.begin(), sorted.end(), [&](int a, int b) {
    return by_memory ? kinds_.ProfileOf(a).memory_bytes > kinds_.ProfileOf(b).memory_bytes
                     : options_.costs().LayerMsPerByte(a) < options_.costs().LayerMsPerByte(b);
  });
  return sorted;
}

// The first workers of each order, as few as fit and all of them, alone and in groups.
std::vector<LocalSearch::Stages> LocalSearch::Starts() const {
  std::vector<Stages> starts;
  for (const bool by_memory : {false, true}) {
    const Kinds sorted = Sorted(by_memory);
    for (const int64_t group : {1, 2, 4, 8}) {
      if (rules_.tensor_parallel > 0 && group != 1) continue;
      const size_t size = rules_.tensor_parallel > 0 ? rules_.tensor_parallel : group;
      Stages stages;
      for (size_t i = 0; i + size <= sorted.size(); i += size) {
        Kinds kinds(sorted.begin() + i, sorted.begin() + i + size);
        std::sort(kinds.begin(), kinds.end());
        if (options_.Of(kinds, 0).empty()) continue;
        stages.push_back(std::move(kinds));
        starts.push_back(stages);
      }
    }
  }
  return starts;
}

std::vector<int> LocalSearch::Unused(const Stages& stages) const {
  std::vector<int> unused = free_;
  for (const Kinds& kinds : stages) {
    for (const int kind : kinds) --unused[kind];
  }
  return unused;
}

void LocalSearch::AddWithout(const Stages& stages, std::vector<Stages>& out) const {
  if (rules_.use_every_worker) return;
  for (size_t i = 0; i < stages.size(); ++i) {
    Stages without = stages;
    without.erase(without.begin() + i);
    out.push_back(std::move(without));
  }
}

// One more worker, as a stage of its own or instead of one.
void LocalSearch::AddWith(const Stages& stages, std::vector<Stages>& out) const {
  const std::vector<int> unused = Unused(stages);
  for (int kind = 0; kind < kinds_.count(); ++kind) {
    if (unused[kind] < 1 || rules_.tensor_parallel > 1) continue;
    for (size_t i = 0; i <= stages.size(); ++i) {
      Stages with = stages;
      with.insert(with.begin() + i, Kinds{kind});
      out.push_back(std::move(with));
    }
    for (size_t i = 0; i < stages.size(); ++i) {
      Stages instead = stages;
      instead[i] = {kind};
      out.push_back(std::move(instead));
    }
  }
}

void LocalSearch::AddExchanged(const Stages& stages, std::vector<Stages>& out) const {
  for (size_t i = 0; i < stages.size(); ++i) {
    for (size_t j = i + 1; j < stages.size(); ++j) {
      if (stages[i] == stages[j]) continue;
      Stages exchanged = stages;
      std::swap(exchanged[i], exchanged[j]);
      out.push_back(std::move(exchanged));
    }
  }
}

// Two stages joined to a group, a group parted, a member exchanged with one of another stage.
void LocalSearch::AddRegrouped(const Stages& stages, std::vector<Stages>& out) const {
  if (rules_.tensor_parallel == 1) return;
  for (size_t i = 0; i < stages.size(); ++i) {
    for (size_t j = i + 1; j < stages.size(); ++j) {
      if (rules_.tensor_parallel == 0 &&
          static_cast<int64_t>(stages[i].size() + stages[j].size()) <= kMaxGroup) {
        Stages joined = stages;
        joined[i].insert(joined[i].end(), stages[j].begin(), stages[j].end());
        std::sort(joined[i].begin(), joined[i].end());
        joined.erase(joined.begin() + j);
        out.push_back(std::move(joined));
      }
      Stages exchanged = stages;
      std::swap(exchanged[i].back(), exchanged[j].front());
      std::sort(exchanged[i].begin(), exchanged[i].end());
      std::sort(exchanged[j].begin(), exchanged[j].end());
      if (exchanged[i] != stages[i]) out.push_back(std::move(exchanged));
    }
    if (rules_.tensor_parallel != 0 || stages[i].size() < 2) continue;
    Stages parted = stages;
    const auto half = static_cast<ptrdiff_t>(stages[i].size() / 2);
    parted[i].erase(parted[i].begin() + half, parted[i].end());
    parted.insert(parted.begin() + i + 1, Kinds(stages[i].begin() + half, stages[i].end()));
    out.push_back(std::move(parted));
  }
}

// Moves to the best of the neighbours if it is better.
bool LocalSearch::TryAll(Point& point, const std::vector<Stages>& neighbours) {
  bool moved = false;
  const Point* best = &point;
  Point candidate;
  for (const Stages& neighbour : neighbours) {
    const std::optional<Value> value = Measure(neighbour);
    if (!value || !Better(*value, best->value)) continue;
    candidate = {neighbour, *value};
    best = &candidate;
    moved = true;
  }
  if (moved) point = std::move(candidate);
  return moved;
}

void LocalSearch::Improve(Point& point) {
  while (tried_ < kMaxLineups) {
    std::vector<Stages> neighbours;
    AddWithout(point.stages, neighbours);
    AddWith(point.stages, neighbours);
    AddExchanged(point.stages, neighbours);
    AddRegrouped(point.stages, neighbours);
    if (!TryAll(point, neighbours)) return;
  }
}

std::vector<double> LocalSearch::WithOneMore(const Point& best) {
  std::vector<double> with(kinds_.count(), kNever);
  const std::vector<int> unused = Unused(best.stages);
  tried_ = 0;
  for (int kind = 0; kind < kinds_.count(); ++kind) {
    for (size_t i = 0; i <= best.stages.size() && unused[kind] > 0; ++i) {
      Stages stages = best.stages;
      stages.insert(stages.begin() + i, Kinds{kind});
      if (const std::optional<Value> value = Measure(stages)) {
        with[kind] = std::min(with[kind], value->first);
      }
    }
  }
  return with;
}

std::optional<Found> LocalSearch::Run() {
  std::vector<Point> points;
  size_t most_workers = 0;
  const auto workers_in = [](const Stages& stages) {
    size_t workers = 0;
    for (const Kinds& kinds : stages) workers += kinds.size();
    return workers;
  };
  for (Stages& stages : Starts()) {
    if (const std::optional<Value> value = Measure(stages)) {
      most_workers = std::max(most_workers, workers_in(stages));
      points.push_back({std::move(stages), *value});
      if (rules_.any_fit) break;
    }
  }
  if (rules_.use_every_worker) {
    std::erase_if(points,
                  [&](const Point& point) { return workers_in(point.stages) < most_workers; });
  }
  if (points.empty()) return std::nullopt;
  std::stable_sort(points.begin(), points.end(),
                   [](const Point& a, const Point& b) { return Better(a.value, b.value); });
  // The best few starts; the first improvement may spend most of the lineups.
  Point best = points.front();
  for (size_t i = 0; i < std::min<size_t>(points.size(), 4) && !rules_.any_fit; ++i) {
    Improve(points[i]);
    if (Better(points[i].value, best.value)) best = points[i];
  }
  Found found;
  found.lineup = ToLineup(best.stages);
  found.value = best.value;
  found.with_one_more = WithOneMore(best);
  return found;
}

}  // namespace

std::optional<Found> SearchLocally(StageOptions& options, const SearchRules& rules) {
  return LocalSearch(options, rules).Run();
}

}  // namespace renga::partition

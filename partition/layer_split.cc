#include "partition/layer_split.h"

#include <algorithm>

namespace renga::partition {
namespace {

using model::Range;

// The second of two times is bisected to this part of it.
constexpr double kBisectedTo = 1e-4;

// Runs of the dynamic programme over a lineup: best[k][l] is the value of giving the first l layers
// to the first k stages, with what the k-th stage then is.
class LineupTable {
 public:
  // `lineup` is not empty.
  LineupTable(StageOptions& options, const Lineup& lineup)
      : n_layers_(options.costs().bytes().layer_count()), count_(lineup.size()) {
    int from = kCoordinator;
    for (const LineupStage& stage : lineup) {
      stages_.push_back(&options.Of(stage.kinds, stage.head_rows));
      if (stages_.back()->empty()) {
        possible_ = false;
        return;
      }
      const std::vector<int>& kinds = stages_.back()->front().shape.kinds;
      hops_ms_ += options.costs().HopMs(from, kinds);
      slowest_transfer_ms_ =
          std::max(slowest_transfer_ms_, options.costs().TransferMs(from, kinds));
      from = kinds[0];
    }
    const StageOption& last = stages_.back()->front();
    if (lineup.back().head_rows > 0) {
      head_ms_ = last.head_ms + ReturnMs(options.costs(), last.shape.kinds);
    }
  }

  bool possible() const { return possible_; }

  // Least time of the slowest stage; infinity when nothing fits.
  double MinimiseSlowest() {
    Run(kNever, [](double before, double, double busy) { return std::max(before, busy); });
    return Last();
  }
  // Least sum of times when no worker may be busy for longer than `slowest`.
  double MinimiseSum(double slowest) {
    Run(slowest, [](double before, double layers, double) { return before + layers; });
    return Last();
  }

  // The split behind the last run.
  LayerSplit Split() const {
    LayerSplit split;
    split.options.resize(count_);
    split.layers.resize(count_);
    split.stream_ms = hops_ms_ + head_ms_;
    split.slowest_ms = slowest_transfer_ms_;
    int64_t end = n_layers_;
    for (size_t k = count_; k > 0; --k) {
      const Cell& cell = best_[k][end];
      split.options[k - 1] = cell.option;
      split.layers[k - 1] = {cell.begin, end};
      split.stream_ms += cell.option->LayersMs(cell.begin, end);
      split.slowest_ms = std::max(split.slowest_ms, cell.option->BusyMs(cell.begin, end));
      end = cell.begin;
    }
    return split;
  }

 private:
  struct Cell {
    double value = kNever;
    int64_t begin = -1;
    const StageOption* option = nullptr;
  };

  double Last() const { return best_[count_][n_layers_].value; }

  template <typename Combine>
  void Run(double slowest, Combine combine) {
    best_.assign(count_ + 1, std::vector<Cell>(n_layers_ + 1));
    best_[0][0].value = 0;
    for (size_t k = 1; k <= count_; ++k) {
      for (const StageOption& option : *stages_[k - 1]) {
        for (int64_t end = static_cast<int64_t>(k); end <= n_layers_; ++end) {
          Cell& cell = best_[k][end];
          for (int64_t begin = end - 1; begin >= option.earliest[end]; --begin) {
            const double busy = option.BusyMs(begin, end);
            if (busy > slowest) break;
            const double before = best_[k - 1][begin].value;
            if (before == kNever) continue;
            const double value = combine(before, option.LayersMs(begin, end), busy);
            if (value * (1 + kSameTime) < cell.value) cell = {value, begin, &option};
          }
        }
      }
    }
  }

  const int64_t n_layers_;
  const size_t count_;
  std::vector<const std::vector<StageOption>*> stages_;
  bool possible_ = true;
  double hops_ms_ = 0;
  double head_ms_ = 0;
  double slowest_transfer_ms_ = 0;
  std::vector<std::vector<Cell>> best_;
};

bool CanHold(const StageOptions& options, const Lineup& lineup) {
  return !lineup.empty() &&
         static_cast<int64_t>(lineup.size()) <= options.costs().bytes().layer_count();
}

// The least slowest stage among the splits with the least sum, nearly: several stages of equal
// speed could share their layers in any way, and should share them evenly.
void EvenOut(LineupTable& table, double least_sum, double least_slowest, double slowest) {
  double low = least_slowest;
  double high = slowest;
  while (high - low > kBisectedTo * high) {
    const double middle = low + (high - low) / 2;
    (table.MinimiseSum(middle) <= least_sum * (1 + kSameTime) ? high : low) = middle;
  }
  table.MinimiseSum(high * (1 + kSameTime));
}

}  // namespace

bool Better(const Value& a, const Value& b) {
  if (a.first * (1 + kSameTime) < b.first) return true;
  return a.first <= b.first * (1 + kSameTime) && a.second * (1 + kSameTime) < b.second;
}

Value ValueFor(Objective objective, double stream_ms, double slowest_ms) {
  return objective == Objective::kOneStream ? Value{stream_ms, slowest_ms}
                                            : Value{slowest_ms, stream_ms};
}

double ReturnMs(const CostModel& costs, const std::vector<int>& kinds) {
  double slowest = 0;
  for (const int kind : kinds) slowest = std::max(slowest, costs.ReturnMs(kind));
  return slowest;
}

std::optional<LayerSplit> SplitLayers(StageOptions& options, const Lineup& lineup,
                                      Objective objective) {
  if (!CanHold(options, lineup)) return std::nullopt;
  LineupTable table(options, lineup);
  if (!table.possible()) return std::nullopt;
  const double least_slowest = table.MinimiseSlowest();
  if (least_slowest == kNever) return std::nullopt;
  if (objective == Objective::kManyStreams) {
    table.MinimiseSum(least_slowest * (1 + kSameTime));
    return table.Split();
  }
  const double least_sum = table.MinimiseSum(kNever);
  EvenOut(table, least_sum, least_slowest, table.Split().slowest_ms);
  return table.Split();
}

std::optional<Value> MeasureLineup(StageOptions& options, const Lineup& lineup,
                                   Objective objective) {
  if (!CanHold(options, lineup)) return std::nullopt;
  LineupTable table(options, lineup);
  if (!table.possible()) return std::nullopt;
  double slowest = kNever;
  if (objective == Objective::kManyStreams) {
    slowest = table.MinimiseSlowest() * (1 + kSameTime);
    if (slowest == kNever) return std::nullopt;
  }
  if (table.MinimiseSum(slowest) == kNever) return std::nullopt;
  const LayerSplit split = table.Split();
  return ValueFor(objective, split.stream_ms, split.slowest_ms);
}

}  // namespace renga::partition

#include "partition/layer_split.h"

#include <algorithm>

namespace renga::partition {
namespace {

using model::Range;

// The second of two times is bisected to this part of it.
constexpr double kBisectedTo = 1e-4;

// How long no stage may take.
struct Limits {
  double token_ms = kNever;   // with its rows of the output matrix
  double prompt_ms = kNever;  // of kPromptRows tokens
};

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
  // Of a token, whatever the split: hops, and the output matrix.
  double fixed_ms() const { return hops_ms_ + head_ms_; }

  // Least time of the slowest stage; infinity when nothing fits.
  double MinimiseSlowest() {
    Run({}, [](double before, double, double busy) { return std::max(before, busy); });
    return Last();
  }
  // Least sum of times when no worker may be busy for longer than these.
  double MinimiseSum(const Limits& limits) {
    Run(limits, [](double before, double layers, double) { return before + layers; });
    return Last();
  }

  // The split behind the last run.
  LayerSplit Split() const {
    LayerSplit split;
    split.options.resize(count_);
    split.layers.resize(count_);
    split.stream_ms = fixed_ms();
    split.slowest_ms = slowest_transfer_ms_;
    int64_t end = n_layers_;
    for (size_t k = count_; k > 0; --k) {
      const Cell& cell = best_[k][end];
      split.options[k - 1] = cell.option;
      split.layers[k - 1] = {cell.begin, end};
      split.stream_ms += cell.option->LayersMs(cell.begin, end);
      split.slowest_ms = std::max(split.slowest_ms, cell.option->BusyMs(cell.begin, end));
      split.prompt_ms = std::max(split.prompt_ms, cell.option->PromptMs(cell.begin, end));
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
  void Run(const Limits& limits, Combine combine) {
    best_.assign(count_ + 1, std::vector<Cell>(n_layers_ + 1));
    best_[0][0].value = 0;
    for (size_t k = 1; k <= count_; ++k) {
      for (const StageOption& option : *stages_[k - 1]) {
        for (int64_t end = static_cast<int64_t>(k); end <= n_layers_; ++end) {
          Cell& cell = best_[k][end];
          for (int64_t begin = end - 1; begin >= option.earliest[end]; --begin) {
            const double busy = option.BusyMs(begin, end);
            if (busy > limits.token_ms) break;
            if (option.PromptMs(begin, end) > limits.prompt_ms) break;
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

// The least `slowest` up to `high` of which `can` says yes, nearly; it does of `high`.
template <typename Can>
double Bisect(double high, Can can) {
  double low = 0;
  while (high - low > kBisectedTo * high) {
    const double middle = low + (high - low) / 2;
    (can(middle) ? high : low) = middle;
  }
  return high * (1 + kSameTime);
}

// The objective's best; with one stream, the least slowest stage among the splits with the least
// sum: several stages of equal speed could share their layers in any way, and should share them
// evenly. Nullopt when nothing fits.
std::optional<LayerSplit> BestFor(Objective objective, LineupTable& table) {
  const double least_slowest = table.MinimiseSlowest();
  if (least_slowest == kNever) return std::nullopt;
  if (objective == Objective::kManyStreams) {
    table.MinimiseSum({.token_ms = least_slowest * (1 + kSameTime)});
    return table.Split();
  }
  const double least_sum = table.MinimiseSum({}) * (1 + kSameTime);
  const double slowest = Bisect(table.Split().slowest_ms, [&](double ms) {
    return table.MinimiseSum({.token_ms = ms}) <= least_sum;
  });
  table.MinimiseSum({.token_ms = slowest});
  return table.Split();
}

// A split with which prompts take less time, for at most `given_up` of a token's; `best` where that
// costs a larger part than it gains.
LayerSplit ForPrompts(LineupTable& table, const LayerSplit& best, double given_up) {
  const double most = best.stream_ms * (1 + given_up);
  const double prompt_ms = Bisect(best.prompt_ms, [&](double ms) {
    return table.fixed_ms() + table.MinimiseSum({.prompt_ms = ms}) <= most;
  });
  table.MinimiseSum({.prompt_ms = prompt_ms});
  LayerSplit split = table.Split();
  if (split.stream_ms * split.prompt_ms >= best.stream_ms * best.prompt_ms) return best;
  split.given_up_ms = std::max(0.0, split.stream_ms - best.stream_ms);
  split.prompts_gain = 1 - split.prompt_ms / best.prompt_ms;
  return split;
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
  const std::optional<LayerSplit> best = BestFor(objective, table);
  const double given_up = options.costs().request().for_prompts;
  if (!best || objective == Objective::kManyStreams || given_up <= 0) return best;
  return ForPrompts(table, *best, given_up);
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
  if (table.MinimiseSum({.token_ms = slowest}) == kNever) return std::nullopt;
  const LayerSplit split = table.Split();
  return ValueFor(objective, split.stream_ms, split.slowest_ms);
}

}  // namespace renga::partition

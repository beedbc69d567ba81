#include "partition/layer_split.h"

#include <algorithm>
#include <cstdint>
#include <limits>

namespace renga::partition {
namespace {

using model::Range;
using model::ShardSpec;

constexpr double kInfinity = std::numeric_limits<double>::infinity();
constexpr size_t kMaxCandidates = 12;

// One run of the dynamic programme over a lineup: best[k][l] is the value of giving the first l
// layers to the first k workers, begins[k][l] where the k-th worker's layers begin then.
class LineupTable {
 public:
  LineupTable(const ShardCosts& costs, const std::vector<WorkerProfile>& workers,
              const Lineup& lineup)
      : costs_(costs), workers_(workers), lineup_(lineup), n_layers_(costs.layer_count()) {}

  // Least time of the slowest stage; infinity when nothing fits.
  double MinimiseSlowest() {
    Run(kInfinity, [](double before, double stage) { return std::max(before, stage); });
    return best_[lineup_.workers.size()][n_layers_];
  }

  // Least sum of times when no stage may take longer than `slowest`.
  double MinimiseTotal(double slowest) {
    Run(slowest, [](double before, double stage) { return before + stage; });
    return best_[lineup_.workers.size()][n_layers_];
  }

  // The split behind the last result.
  std::vector<Range> Layers() const {
    std::vector<Range> layers(lineup_.workers.size());
    int64_t end = n_layers_;
    for (size_t k = layers.size(); k > 0; --k) {
      layers[k - 1] = {begins_[k][end], end};
      end = layers[k - 1].begin;
    }
    return layers;
  }

 private:
  template <typename Combine>
  void Run(double slowest, Combine combine) {
    const size_t count = lineup_.workers.size();
    best_.assign(count + 1, std::vector<double>(n_layers_ + 1, kInfinity));
    begins_.assign(count + 1, std::vector<int64_t>(n_layers_ + 1, -1));
    best_[0][0] = 0;
    for (size_t k = 1; k <= count; ++k) {
      const WorkerProfile& worker = workers_[lineup_.workers[k - 1]];
      for (int64_t begin = static_cast<int64_t>(k) - 1; begin < n_layers_; ++begin) {
        const double before = best_[k - 1][begin];
        if (before == kInfinity) continue;
        for (int64_t end = begin + 1; end <= n_layers_; ++end) {
          const ShardSpec spec{.layers = {begin, end}, .head_rows = lineup_.head_rows[k - 1]};
          // Both only grow with the range.
          if (!costs_.Fits(worker, spec)) break;
          const double stage = costs_.Milliseconds(worker, spec);
          if (stage > slowest) break;
          const double value = combine(before, stage);
          if (value < best_[k][end]) {
            best_[k][end] = value;
            begins_[k][end] = begin;
          }
        }
      }
    }
  }

  const ShardCosts& costs_;
  const std::vector<WorkerProfile>& workers_;
  const Lineup& lineup_;
  const int64_t n_layers_;
  std::vector<std::vector<double>> best_;
  std::vector<std::vector<int64_t>> begins_;
};

// The first layer of the longest run of layers that ends at `end` and fits; `end` when none does.
int64_t EarliestBegin(const ShardCosts& costs, const WorkerProfile& worker, int64_t end,
                      const Range& head_rows) {
  int64_t begin = end;
  while (begin > 0 && costs.Fits(worker, {.layers = {begin - 1, end}, .head_rows = head_rows})) {
    --begin;
  }
  return begin;
}

}  // namespace

std::optional<LayerSplit> SplitLayers(const ShardCosts& costs,
                                      const std::vector<WorkerProfile>& workers,
                                      const Lineup& lineup) {
  if (lineup.workers.empty() || static_cast<int64_t>(lineup.workers.size()) > costs.layer_count()) {
    return std::nullopt;
  }
  LineupTable table(costs, workers, lineup);
  LayerSplit split;
  split.slowest_ms = table.MinimiseSlowest();
  if (split.slowest_ms == kInfinity) return std::nullopt;
  split.total_ms = table.MinimiseTotal(split.slowest_ms);
  split.layers = table.Layers();
  return split;
}

// For every set of workers the earliest layer they can reach from the end, in the best order. A
// set that reaches further is never worse: what fits from a later border fits from an earlier one.
std::vector<int> FindFittingOrder(const ShardCosts& costs,
                                  const std::vector<WorkerProfile>& workers,
                                  const std::vector<int>& candidates, const Range& last_head_rows) {
  const size_t count = std::min(candidates.size(), kMaxCandidates);
  const uint32_t sets = uint32_t{1} << count;
  std::vector<int64_t> reach(sets, costs.layer_count());
  std::vector<int> first(sets, -1);  // the set's worker with the earliest layers
  for (uint32_t set = 1; set < sets; ++set) {
    for (size_t i = 0; i < count; ++i) {
      const uint32_t rest = set & ~(uint32_t{1} << i);
      if (rest == set || (rest != 0 && first[rest] < 0)) continue;
      const int64_t end = reach[rest];
      const int64_t begin =
          EarliestBegin(costs, workers[candidates[i]], end, rest == 0 ? last_head_rows : Range{});
      if (begin < end && (first[set] < 0 || begin < reach[set])) {
        reach[set] = begin;
        first[set] = static_cast<int>(i);
      }
    }
    if (first[set] < 0 || reach[set] > 0) continue;
    std::vector<int> order;
    for (uint32_t left = set; left != 0; left &= ~(uint32_t{1} << first[left])) {
      order.push_back(candidates[first[left]]);
    }
    return order;
  }
  return {};
}

}  // namespace renga::partition

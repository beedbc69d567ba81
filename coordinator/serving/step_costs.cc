#include "coordinator/serving/step_costs.h"

#include <algorithm>
#include <map>

namespace renga::serving {
namespace {

constexpr double kWeight = 0.2;
// What makes one number of rows slower or faster (another program, a busier network) does so to
// others: a measurement moves them too, by this share of its own surprise. So a number of rows
// that was not tried for long is not compared to measurements of another time.
constexpr double kCommon = 0.1;
// One hiccup is not believed: a later measurement counts as at most this many times the average.
constexpr double kMostSurprise = 2;

template <typename Change>
StepCost Each(const StepCost& a, const StepCost& b, const Change& change) {
  return {change(a.round_trip_us, b.round_trip_us), change(a.compute_us, b.compute_us),
          change(a.busiest_us, b.busiest_us)};
}

// `cost`, measured with `from` rows, as it may be with `to` rows: hops take as long.
StepCost Extrapolate(const StepCost& cost, int64_t from, int64_t to) {
  const double slope = StepCosts::kAssumedSlope;
  const double factor =
      (1 + slope * static_cast<double>(to - 1)) / (1 + slope * static_cast<double>(from - 1));
  return {cost.round_trip_us + cost.compute_us * (factor - 1), cost.compute_us * factor,
          cost.busiest_us * factor};
}

}  // namespace

StepCost CostOf(const cluster::StepOutcome& outcome) {
  StepCost cost;
  cost.round_trip_us = static_cast<double>(outcome.round_trip_us);
  cost.compute_us = outcome.compute_us;
  std::map<uint32_t, double> workers;
  for (const cluster::StageTiming& timing : outcome.timings) {
    const auto us = static_cast<double>(timing.compute_us);
    cost.busiest_us = std::max(cost.busiest_us, workers[timing.worker_index] += us);
  }
  return cost;
}

void StepCosts::Add(int64_t rows, const StepCost& cost) {
  if (rows < 1 || rows > kMaxRows || cost.round_trip_us <= 0) return;
  Entry& entry = entries_[rows];
  if (++entry.samples == 1) {
    entry.cost = cost;
    return;
  }
  const double surprise = cost.round_trip_us / entry.cost.round_trip_us;
  const double believed = std::clamp(surprise, 1 / kMostSurprise, kMostSurprise) / surprise;
  const double weight = std::max(kWeight, 1 / static_cast<double>(entry.samples));
  entry.cost = Each(entry.cost, cost, [&](double average, double measured) {
    return average + weight * (measured * believed - average);
  });
  const double drift = 1 + kCommon * (surprise * believed - 1);
  for (Entry& other : entries_) {
    if (&other == &entry) continue;
    other.cost = Each(other.cost, {}, [&](double average, double) { return average * drift; });
  }
}

std::optional<StepCost> StepCosts::Predict(int64_t rows) const {
  rows = std::clamp<int64_t>(rows, 1, kMaxRows);
  int64_t below = rows;
  while (below > 0 && entries_[below].samples == 0) --below;
  int64_t above = rows;
  while (above <= kMaxRows && entries_[above].samples == 0) ++above;
  if (below == 0 && above > kMaxRows) return std::nullopt;
  if (below == 0) return Extrapolate(entries_[above].cost, above, rows);
  if (above > kMaxRows) return Extrapolate(entries_[below].cost, below, rows);
  if (below == above) return entries_[rows].cost;
  const double share = static_cast<double>(rows - below) / static_cast<double>(above - below);
  return Each(entries_[below].cost, entries_[above].cost,
              [&](double low, double high) { return low + share * (high - low); });
}

}  // namespace renga::serving

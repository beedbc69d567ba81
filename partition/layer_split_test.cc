// Lineups of fixed workers against trying every cut.
#include "partition/layer_split.h"

#include <algorithm>
#include <functional>
#include <random>

#include "base/testing/status_matchers.h"
#include "partition/random_cluster.h"

namespace renga::partition {
namespace {

using model::Range;

// Calls `visit` with every way to cut [begin, n) into `count` non-empty ranges.
void ForEveryCut(int64_t begin, int64_t n, size_t count, std::vector<Range>& cut,
                 const std::function<void(const std::vector<Range>&)>& visit) {
  if (count == 0) {
    if (begin == n) visit(cut);
    return;
  }
  for (int64_t end = begin + 1; end <= n; ++end) {
    cut.push_back({begin, end});
    ForEveryCut(end, n, count - 1, cut, visit);
    cut.pop_back();
  }
}

std::optional<Value> BestByTrying(const CostModel& costs, const std::vector<int>& order,
                                  Objective objective) {
  std::optional<Value> best;
  std::vector<Range> cut;
  ForEveryCut(0, costs.bytes().layer_count(), order.size(), cut, [&](const auto& layers) {
    std::vector<StagePlan> stages;
    for (size_t i = 0; i < order.size(); ++i) {
      const int worker = costs.kinds().WorkersOf(order[i])[0];
      model::ShardSpec spec{.layers = layers[i], .head_rows = {}};
      if (i + 1 == order.size()) spec.head_rows = {0, costs.bytes().vocab_size()};
      if (!costs.bytes().Fits(costs.kinds().ProfileOf(order[i]), spec)) return;
      stages.push_back(
          {.members = {{.worker = worker, .slice = std::nullopt}}, .layers = layers[i]});
    }
    const HeadPlan head{.worker = stages.back().members[0].worker,
                        .rows = {0, costs.bytes().vocab_size()}};
    const PlanTimes times = costs.Price(stages, {head});
    const Value value = ValueFor(objective, times.stream(), times.slowest);
    if (!best || Better(value, *best)) best = value;
  });
  return best;
}

TEST(SplitLayersTest, IsAsGoodAsTheBestOfAllCuts) {
  int fitting = 0;
  for (uint32_t seed = 1; seed <= 400; ++seed) {
    SCOPED_TRACE(seed);
    RandomCluster cluster(seed, {.max_workers = 4, .max_layers = 6});
    const Instance& instance = cluster.instance();
    Lineup lineup;
    std::vector<int> order;
    for (int kind = 0; kind < instance.kinds.count(); ++kind) {
      order.push_back(kind);
      lineup.push_back({.kinds = {kind}, .head_rows = 0});
    }
    lineup.back().head_rows = instance.bytes.vocab_size();
    StageOptions options(instance.costs);
    const Objective objective = instance.request.objective;
    const auto expected = BestByTrying(instance.costs, order, objective);
    const auto actual = SplitLayers(options, lineup, objective);
    ASSERT_EQ(actual.has_value(), expected.has_value());
    if (!actual) continue;
    ++fitting;
    const Value value = ValueFor(objective, actual->stream_ms, actual->slowest_ms);
    EXPECT_NEAR(value.first, expected->first, 1e-6 * expected->first);
    // The second of one stream is found by bisection.
    EXPECT_NEAR(value.second, expected->second, 1e-3 * expected->second);
  }
  EXPECT_GT(fitting, 50);
  EXPECT_LT(fitting, 390);
}

// Cards of equal speed could share their layers in any way; they share them evenly.
TEST(SplitLayersTest, EqualStagesShareEvenly) {
  RandomCluster cluster = RandomCluster::OfEqualWorkers(4, 12);
  const Instance& instance = cluster.instance();
  StageOptions options(instance.costs);
  const Lineup lineup(4, {.kinds = {0}, .head_rows = 0});
  const auto split = SplitLayers(options, lineup, Objective::kOneStream);
  ASSERT_TRUE(split.has_value());
  for (const Range& layers : split->layers) EXPECT_EQ(layers.size(), 3);
}

}  // namespace
}  // namespace renga::partition

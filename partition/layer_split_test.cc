// Lineups of fixed workers against trying every cut.
#include "partition/layer_split.h"

#include <algorithm>
#include <functional>
#include <numeric>

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

// Every cut that fits, with the time of a token and of a prompt's slowest stage.
void ForEveryFit(
    const CostModel& costs, const std::vector<int>& order, Objective objective,
    const std::function<void(const std::vector<Range>&, const Value&, double prompt_ms)>& visit) {
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
    double prompt_ms = 0;
    for (const StageTimes& stage : costs.Price(stages, {head}, kPromptRows).stages) {
      prompt_ms = std::max(prompt_ms, stage.compute + stage.sums);
    }
    visit(layers, ValueFor(objective, times.stream(), times.slowest), prompt_ms);
  });
}

std::optional<Value> BestByTrying(const CostModel& costs, const std::vector<int>& order,
                                  Objective objective) {
  std::optional<Value> best;
  ForEveryFit(costs, order, objective, [&](const auto&, const Value& value, double) {
    if (!best || Better(value, *best)) best = value;
  });
  return best;
}

// Workers in the order of their kinds, the head on the last one.
Lineup OneOfEachKind(const Instance& instance) {
  Lineup lineup;
  for (int kind = 0; kind < instance.kinds.count(); ++kind) {
    lineup.push_back({.kinds = {kind}, .head_rows = 0});
  }
  lineup.back().head_rows = instance.bytes.vocab_size();
  return lineup;
}

TEST(SplitLayersTest, IsAsGoodAsTheBestOfAllCuts) {
  int fitting = 0;
  for (uint32_t seed = 1; seed <= 400; ++seed) {
    SCOPED_TRACE(seed);
    RandomCluster cluster(seed, {.max_workers = 4, .max_layers = 6});
    const Instance& instance = cluster.instance();
    std::vector<int> order(instance.kinds.count());
    std::iota(order.begin(), order.end(), 0);
    const Lineup lineup = OneOfEachKind(instance);
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

// Among all cuts that cost at most what may be given up, the one with the fastest prompts, unless
// it costs a larger part than it gains.
TEST(SplitLayersTest, PromptsGetWhatIsGivenUpForThem) {
  constexpr double kGivenUp = 0.5;
  int faster = 0;
  int kept = 0;
  for (uint32_t seed = 1; seed <= 1000; ++seed) {
    SCOPED_TRACE(seed);
    const RandomCluster plain(seed, {.max_workers = 3, .max_layers = 12});
    const RandomCluster cluster(seed,
                                {.max_workers = 3, .max_layers = 12, .for_prompts = kGivenUp});
    const Instance& instance = cluster.instance();
    const Objective objective = Objective::kOneStream;
    StageOptions plain_options(plain.instance().costs);
    StageOptions options(instance.costs);
    const auto best = SplitLayers(plain_options, OneOfEachKind(plain.instance()), objective);
    const auto split = SplitLayers(options, OneOfEachKind(instance), objective);
    ASSERT_EQ(split.has_value(), best.has_value());
    if (!split) continue;
    const auto first = [&](const LayerSplit& of) {
      return ValueFor(objective, of.stream_ms, of.slowest_ms).first;
    };
    EXPECT_LE(first(*split), first(*best) * (1 + kGivenUp + 1e-6));
    if (split->prompt_ms == best->prompt_ms) {
      ++kept;
      EXPECT_EQ(split->layers, best->layers);
    } else {
      ++faster;
      EXPECT_LT(split->prompt_ms * first(*split), best->prompt_ms * first(*best));
    }
    std::vector<int> order(instance.kinds.count());
    std::iota(order.begin(), order.end(), 0);
    double least_prompt = kNever;
    ForEveryFit(instance.costs, order, objective,
                [&](const auto&, const Value& value, double prompt_ms) {
                  if (value.first > first(*best) * (1 + kGivenUp)) return;
                  least_prompt = std::min(least_prompt, prompt_ms);
                });
    if (split->layers != best->layers) {
      EXPECT_NEAR(split->prompt_ms, least_prompt, 1e-3 * least_prompt);
    }
  }
  EXPECT_GT(faster, 15);
  EXPECT_GT(kept, 20);
}

// The last stage has the output matrix too, which costs a prompt nothing.
TEST(SplitLayersTest, StagesShareTheOneStreamsPromptEvenly) {
  const RandomCluster cluster = RandomCluster::OfEqualWorkers(2, 22);
  const Instance& instance = cluster.instance();
  StageOptions options(instance.costs);
  const Lineup lineup = {{.kinds = {0}, .head_rows = 0},
                         {.kinds = {0}, .head_rows = instance.bytes.vocab_size()}};
  const auto for_one = SplitLayers(options, lineup, Objective::kOneStream);
  ASSERT_TRUE(for_one.has_value());
  for (const Range& layers : for_one->layers) EXPECT_EQ(layers.size(), 11);
  const auto for_many = SplitLayers(options, lineup, Objective::kManyStreams);
  ASSERT_TRUE(for_many.has_value());
  EXPECT_GT(for_many->layers[0].size(), for_many->layers[1].size());
}

}  // namespace
}  // namespace renga::partition

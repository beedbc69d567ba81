// The exact search against trying every set of workers, in every order, in every grouping, and the
// bounded one against the exact one.
#include "partition/exact_search.h"

#include <algorithm>
#include <functional>
#include <numeric>

#include "base/testing/status_matchers.h"
#include "partition/local_search.h"
#include "partition/lower_bound.h"
#include "partition/random_cluster.h"

namespace renga::partition {
namespace {

SearchRules RulesFor(const Instance& instance) {
  return {.objective = instance.request.objective,
          .max_workers = static_cast<int64_t>(instance.workers.size()),
          .last_head_rows = instance.bytes.vocab_size()};
}

// Calls `visit` with every lineup of some of the workers from `rest` on, in stages of sizes that
// `may_be_stage` allows. `rest` is an order of all workers.
void ForEveryLineup(const Instance& instance, const std::vector<int>& rest, size_t from,
                    Lineup& lineup, const std::function<bool(size_t)>& may_be_stage,
                    const std::function<void(const Lineup&)>& visit) {
  if (!lineup.empty()) visit(lineup);
  for (size_t size = 1; from + size <= rest.size(); ++size) {
    if (!may_be_stage(size)) continue;
    LineupStage stage;
    for (size_t i = 0; i < size; ++i) stage.kinds.push_back(instance.kinds.KindOf(rest[from + i]));
    std::sort(stage.kinds.begin(), stage.kinds.end());
    lineup.push_back(std::move(stage));
    ForEveryLineup(instance, rest, from + size, lineup, may_be_stage, visit);
    lineup.pop_back();
  }
}

std::optional<Value> BestByTrying(const Instance& instance, StageOptions& options,
                                  const std::function<bool(size_t)>& may_be_stage) {
  std::optional<Value> best;
  std::vector<int> order(instance.workers.size());
  std::iota(order.begin(), order.end(), 0);
  do {
    Lineup lineup;
    ForEveryLineup(instance, order, 0, lineup, may_be_stage, [&](const Lineup& stages) {
      Lineup with_head = stages;
      with_head.back().head_rows = instance.bytes.vocab_size();
      const auto value = MeasureLineup(options, with_head, instance.request.objective);
      if (value && (!best || Better(*value, *best))) best = value;
    });
  } while (std::next_permutation(order.begin(), order.end()));
  return best;
}

// What every instance must satisfy; returns whether anything fits.
bool ExpectOptimal(const Instance& instance, const SearchRules& rules,
                   const std::function<bool(size_t)>& may_be_stage) {
  StageOptions options(instance.costs);
  const auto expected = BestByTrying(instance, options, may_be_stage);
  const auto actual = SearchExactly(options, rules);
  EXPECT_EQ(actual.has_value(), expected.has_value());
  if (!actual || !expected) return false;
  EXPECT_TRUE(actual->exact);
  EXPECT_NEAR(actual->value.first, expected->first, 1e-6 * expected->first);
  // The lineup is worth what was said of it.
  const auto measured = MeasureLineup(options, actual->lineup, rules.objective);
  EXPECT_TRUE(measured.has_value());
  if (!measured) return false;
  EXPECT_NEAR(measured->first, expected->first, 1e-6 * expected->first);
  if (rules.objective == Objective::kManyStreams) {
    EXPECT_NEAR(measured->second, expected->second, 1e-6 * expected->second);
  }
  const double bound = LowerBound(instance.costs, rules);
  EXPECT_LE(bound, expected->first * (1 + 1e-9));
  const auto local = SearchLocally(options, rules);
  if (local) {
    EXPECT_GE(local->value.first, expected->first * (1 - 1e-6));
  }
  return true;
}

TEST(SearchExactlyTest, IsAsGoodAsTheBestOfAllOrders) {
  int fitting = 0;
  for (uint32_t seed = 1; seed <= 400; ++seed) {
    SCOPED_TRACE(seed);
    const RandomCluster cluster(seed, {.max_workers = 4, .max_layers = 6});
    const Instance& instance = cluster.instance();
    fitting += ExpectOptimal(instance, RulesFor(instance), [](size_t size) { return size == 1; });
  }
  EXPECT_GT(fitting, 150);
  EXPECT_LT(fitting, 395);
}

TEST(SearchExactlyTest, IsAsGoodAsTheBestOfAllGroupings) {
  int fitting = 0;
  int with_groups = 0;
  for (uint32_t seed = 1; seed <= 200; ++seed) {
    SCOPED_TRACE(seed);
    const RandomCluster cluster(seed, {.max_workers = 4, .max_layers = 4, .slices = true});
    const Instance& instance = cluster.instance();
    SearchRules rules = RulesFor(instance);
    rules.tensor_parallel = 0;
    fitting += ExpectOptimal(instance, rules, [](size_t) { return true; });
    StageOptions options(instance.costs);
    const auto found = SearchExactly(options, rules);
    with_groups += found && std::any_of(found->lineup.begin(), found->lineup.end(),
                                        [](const auto& stage) { return stage.kinds.size() > 1; });
  }
  EXPECT_GT(fitting, 80);
  EXPECT_GT(with_groups, 10);
  EXPECT_LT(with_groups, fitting);
}

TEST(SearchExactlyTest, GroupsOfTheSizeAskedFor) {
  for (uint32_t seed = 1; seed <= 60; ++seed) {
    SCOPED_TRACE(seed);
    const RandomCluster cluster(seed, {.max_workers = 4, .max_layers = 4, .slices = true});
    const Instance& instance = cluster.instance();
    SearchRules rules = RulesFor(instance);
    rules.tensor_parallel = 2;
    ExpectOptimal(instance, rules, [](size_t size) { return size == 2; });
  }
}

TEST(SearchLocallyTest, IsNearlyAsGoodAsTheExactSearch) {
  double worst = 1;
  int fitting = 0;
  for (uint32_t seed = 1; seed <= 100; ++seed) {
    SCOPED_TRACE(seed);
    const RandomCluster cluster(seed, {.max_workers = 7, .max_layers = 20});
    const Instance& instance = cluster.instance();
    StageOptions options(instance.costs);
    const auto exact = SearchExactly(options, RulesFor(instance));
    const auto local = SearchLocally(options, RulesFor(instance));
    if (!exact) {
      EXPECT_FALSE(local.has_value());
      continue;
    }
    if (!local) continue;
    ++fitting;
    worst = std::max(worst, local->value.first / exact->value.first);
  }
  EXPECT_GT(fitting, 30);
  EXPECT_LT(worst, 1.1);
}

}  // namespace
}  // namespace renga::partition

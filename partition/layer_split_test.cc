// The dynamic programme and the search for an order against trying everything.
#include "partition/layer_split.h"

#include <algorithm>
#include <functional>
#include <numeric>
#include <random>

#include "base/testing/status_matchers.h"
#include "partition/test_models.h"

namespace renga::partition {
namespace {

using model::Range;

constexpr int64_t kMebibyte = int64_t{1} << 20;

const model::RuntimeLimits kLimits = {
    .kv_blocks = 8, .max_step_tokens = 32, .max_step_outputs = 4, .kv_type = base::DataType::kF16};

struct Instance {
  TestModel model;
  std::vector<WorkerProfile> workers;
};

Instance RandomInstance(uint32_t seed) {
  std::mt19937 random(seed);
  Instance instance;
  std::vector<int64_t> layers(1 + random() % 6);
  for (int64_t& bytes : layers) bytes = (1 + random() % 8) * kMebibyte;
  instance.model = MakeTestModel(layers, 2000);
  instance.workers.resize(1 + random() % 4);
  for (size_t i = 0; i < instance.workers.size(); ++i) {
    instance.workers[i] = {.id = std::to_string(i),
                           .memory_bytes = static_cast<int64_t>(4 + random() % 30) * kMebibyte,
                           .bytes_per_second = 1e9 * (1 + random() % 10)};
  }
  return instance;
}

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

std::optional<std::pair<double, double>> BestByTrying(const ShardCosts& costs,
                                                      const std::vector<WorkerProfile>& workers,
                                                      const Lineup& lineup) {
  std::optional<std::pair<double, double>> best;
  std::vector<Range> cut;
  ForEveryCut(0, costs.layer_count(), lineup.workers.size(), cut, [&](const auto& layers) {
    std::pair<double, double> value(0, 0);
    for (size_t i = 0; i < layers.size(); ++i) {
      const WorkerProfile& worker = workers[lineup.workers[i]];
      const model::ShardSpec spec{.layers = layers[i], .head_rows = lineup.head_rows[i]};
      if (!costs.Fits(worker, spec)) return;
      value.first = std::max(value.first, costs.Milliseconds(worker, spec));
      value.second += costs.Milliseconds(worker, spec);
    }
    if (!best || value < *best) best = value;
  });
  return best;
}

TEST(SplitLayersTest, IsAsGoodAsTheBestOfAllCuts) {
  int fitting = 0;
  for (uint32_t seed = 1; seed <= 400; ++seed) {
    SCOPED_TRACE(seed);
    const Instance instance = RandomInstance(seed);
    const ShardCosts costs(instance.model.model, instance.model.footprint, kLimits);
    Lineup lineup;
    lineup.workers.resize(instance.workers.size());
    std::iota(lineup.workers.begin(), lineup.workers.end(), 0);
    lineup.head_rows.resize(lineup.workers.size());
    lineup.head_rows.back() = {0, 2000};
    const auto expected = BestByTrying(costs, instance.workers, lineup);
    const auto actual = SplitLayers(costs, instance.workers, lineup);
    ASSERT_EQ(actual.has_value(), expected.has_value());
    if (!actual) continue;
    ++fitting;
    EXPECT_EQ(actual->slowest_ms, expected->first);
    EXPECT_NEAR(actual->total_ms, expected->second, 1e-9);
  }
  EXPECT_GT(fitting, 50);
  EXPECT_LT(fitting, 350);
}

bool SomeOrderFits(const Instance& instance, const ShardCosts& costs, const Range& last_rows) {
  std::vector<int> order(instance.workers.size());
  std::iota(order.begin(), order.end(), 0);
  do {
    for (size_t count = 1; count <= order.size(); ++count) {
      Lineup lineup{.workers = {order.begin(), order.begin() + count},
                    .head_rows = std::vector<Range>(count)};
      lineup.head_rows.back() = last_rows;
      if (BestByTrying(costs, instance.workers, lineup)) return true;
    }
  } while (std::next_permutation(order.begin(), order.end()));
  return false;
}

TEST(FindFittingOrderTest, FindsOneExactlyWhenThereIsOne) {
  int found = 0;
  for (uint32_t seed = 1; seed <= 300; ++seed) {
    SCOPED_TRACE(seed);
    const Instance instance = RandomInstance(seed);
    const ShardCosts costs(instance.model.model, instance.model.footprint, kLimits);
    const Range last_rows = seed % 2 == 0 ? Range{0, 2000} : Range{};
    std::vector<int> all(instance.workers.size());
    std::iota(all.begin(), all.end(), 0);
    const std::vector<int> order = FindFittingOrder(costs, instance.workers, all, last_rows);
    ASSERT_EQ(!order.empty(), SomeOrderFits(instance, costs, last_rows));
    if (order.empty()) continue;
    ++found;
    Lineup lineup{.workers = order, .head_rows = std::vector<Range>(order.size())};
    lineup.head_rows.back() = last_rows;
    EXPECT_TRUE(SplitLayers(costs, instance.workers, lineup).has_value());
  }
  EXPECT_GT(found, 50);
  EXPECT_LT(found, 280);
}

}  // namespace
}  // namespace renga::partition

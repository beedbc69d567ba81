#include "partition/cost_model.h"

#include <algorithm>
#include <string>
#include <vector>

#include "gtest/gtest.h"
#include "model/layer_slice.h"
#include "partition/planner.h"
#include "partition/test_models.h"

namespace renga::partition {
namespace {

constexpr double kCable = 1e6;    // bytes per second between machines
constexpr double kMemory = 1e12;  // and within one

// Cards of two machines, each with its host beside it.
std::vector<WorkerProfile> CardsAndHosts(bool known_machines) {
  std::vector<WorkerProfile> workers;
  for (const std::string machine : {"a", "b"}) {
    for (const std::string part : {"card", "host"}) {
      workers.push_back({.id = machine + part,
                         .memory_bytes = int64_t{1} << 30,
                         .bytes_per_second = part == "card" ? 10e9 : 1e9,
                         .machine = known_machines ? machine : ""});
    }
  }
  return workers;
}

// Of one layer, for a group of these workers.
double SumsOf(const std::vector<WorkerProfile>& workers, const std::vector<int>& group) {
  const TestModel model = MakeTestModel(std::vector<int64_t>(2, 1 << 20), 100, true);
  PlanRequest request;
  request.links.default_link = {.latency_us = 0, .bytes_per_second = kCable};
  for (const int first : {0, 2}) {
    const LinkProfile near = {.latency_us = 0, .bytes_per_second = kMemory};
    request.links.pairs.push_back({first, first + 1, near});
    request.links.pairs.push_back({first + 1, first, near});
  }
  const MachineKinds kinds(workers, request.links);
  const ShardCosts bytes(model.model, model.footprint, LimitsOf(request));
  const CostModel costs(bytes, kinds, request);
  StageShape shape;
  for (const int worker : group) shape.kinds.push_back(kinds.KindOf(worker));
  shape.slices.resize(group.size());
  return costs.SumsMs(shape);
}

// A sum of two rounds sends 2 / n of each part that passes the cable; a row of the model is 1 KiB.
double TwoRounds(int parts, int members, double bytes_per_second) {
  return 2 * 2.0 * parts / members * 1024 / bytes_per_second * 1e3;
}

TEST(CostModelTest, WorkersOfOneMachineSendThroughOneCable) {
  const std::vector<WorkerProfile> known = CardsAndHosts(true);
  const std::vector<WorkerProfile> unknown = CardsAndHosts(false);
  // Both of a machine's members send to both of the other one's.
  EXPECT_DOUBLE_EQ(SumsOf(known, {0, 1, 2, 3}), TwoRounds(4, 4, kCable));
  EXPECT_DOUBLE_EQ(SumsOf(unknown, {0, 1, 2, 3}), TwoRounds(3, 4, kCable));
  // One member on each machine, or all on one: as ever.
  EXPECT_DOUBLE_EQ(SumsOf(known, {0, 2}), SumsOf(unknown, {0, 2}));
  EXPECT_DOUBLE_EQ(SumsOf(known, {0, 1}), TwoRounds(1, 2, kMemory));
}

TEST(CostModelTest, SumsOfLongStepsTravelWhileOtherRowsAreComputed) {
  EXPECT_EQ(CostModel::AddedSumsMs(10, 4, 31), 4);
  EXPECT_EQ(CostModel::AddedSumsMs(10, 4, 32), 0);
  EXPECT_EQ(CostModel::AddedSumsMs(10, 14, 31), 14);
  EXPECT_EQ(CostModel::AddedSumsMs(10, 14, 32), 4);
}

TEST(CostModelTest, APromptTakesAsLongAsItsProductsOrItsSums) {
  const TestModel model = MakeTestModel(std::vector<int64_t>(2, 1 << 20), 100, true);
  const std::vector<WorkerProfile> workers = CardsAndHosts(false);
  const model::ModelConfig& config = model.model.config;
  for (const double bytes_per_second : {1e6, 1e12}) {
    PlanRequest request;
    request.links.default_link = {.latency_us = 0, .bytes_per_second = bytes_per_second};
    const MachineKinds kinds(workers, request.links);
    const ShardCosts bytes(model.model, model.footprint, LimitsOf(request));
    const CostModel costs(bytes, kinds, request);
    const model::LayerSlice whole = model::WholeLayer(config);
    const StageShape shape{.kinds = {kinds.KindOf(0), kinds.KindOf(2)}, .slices = {whole, whole}};
    const StagePlan stage{.members = {{.worker = 0, .slice = whole}, {.worker = 2, .slice = whole}},
                          .layers = {0, 2}};
    const HeadPlan head{.worker = 0, .rows = {0, config.vocab_size}};
    for (const int64_t rows : {1, 31, 32, 512}) {
      const double products = costs.LayerMs(shape, 0, rows);
      const double sums = costs.SumsMs(shape, rows);
      const StageTimes times = costs.Price({stage}, {head}, rows).stages[0];
      EXPECT_DOUBLE_EQ(times.compute, 2 * products);
      const double layer = rows < 32 ? products + sums : std::max(products, sums);
      EXPECT_NEAR(times.compute + times.sums, 2 * layer, 1e-9 * layer) << rows << " rows";
    }
  }
}

TEST(CostModelTest, AMachineOfItsOwnMakesNoKind) {
  std::vector<WorkerProfile> workers(4, {.id = "", .memory_bytes = 1, .bytes_per_second = 1});
  for (size_t i = 0; i < workers.size(); ++i) workers[i].machine = std::to_string(i);
  EXPECT_EQ(MachineKinds(workers, {}).count(), 1);
  EXPECT_EQ(MachineKinds(workers, {}).MachineOf(0), -1);
  workers[3].machine = workers[2].machine;
  const MachineKinds kinds(workers, {});
  EXPECT_EQ(kinds.count(), 2);
  EXPECT_EQ(kinds.KindOf(2), kinds.KindOf(3));
  EXPECT_EQ(kinds.MachineOf(kinds.KindOf(0)), -1);
  EXPECT_GE(kinds.MachineOf(kinds.KindOf(2)), 0);
}

}  // namespace
}  // namespace renga::partition

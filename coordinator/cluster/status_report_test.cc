#include "coordinator/cluster/status_report.h"

#include "coordinator/cluster/testing/test_model.h"
#include "gtest/gtest.h"

namespace renga::cluster {
namespace {

// Two workers side by side, then one that also holds the output matrix.
ClusterView ViewOfThree() {
  auto placement = std::make_shared<Placement>();
  placement->workers.resize(3);
  placement->workers[0].spec.layers = placement->workers[1].spec.layers = {0, 4};
  placement->workers[2].spec.layers = {4, 6};
  placement->stages = {{0, 1}, {2}};
  placement->heads = {2};
  placement->predicted.stages = {{.hop = 1, .compute = 5, .sums = 2}, {.hop = 2, .compute = 4}};
  placement->predicted.head = 4;
  placement->predicted.head_compute = 3;
  ReplicaView view;
  view.placement = placement;
  view.times.decode_network_us = 8000;
  view.times.workers.resize(3);
  view.times.workers[0].decode_layers_us = 6000;
  view.times.workers[1].decode_layers_us = 7500;
  view.times.workers[2].decode_layers_us = 4500;
  view.times.workers[2].decode_head_us = 2500;
  return {.state = ClusterState::kReady, .sentence = "", .replicas = {view}, .left_out = {}};
}

TEST(StatusReportTest, MeasuredStandsBesidePredicted) {
  const TestModel model;
  const auto store = model.Open();
  const ClusterStatus status = MakeStatus(ViewOfThree(), *store, {}, absl::ZeroDuration());
  ASSERT_EQ(status.replicas.size(), 1u);
  ASSERT_EQ(status.replicas[0].stages.size(), 2u);
  EXPECT_EQ(status.replicas[0].stages[0].workers, (std::vector<uint32_t>{0, 1}));
  EXPECT_EQ(status.replicas[0].stages[0].layers, (model::Range{0, 4}));
  EXPECT_DOUBLE_EQ(status.replicas[0].stages[0].compute.predicted_ms, 7);
  EXPECT_DOUBLE_EQ(status.replicas[0].stages[0].compute.measured_ms, 7.5);  // its slowest member's
  EXPECT_DOUBLE_EQ(status.replicas[0].stages[1].compute.measured_ms, 4.5);
  EXPECT_DOUBLE_EQ(status.replicas[0].head.predicted_ms, 3);
  EXPECT_DOUBLE_EQ(status.replicas[0].head.measured_ms, 2.5);
  // 8 ms over hops of 1, 2 and 1.
  EXPECT_DOUBLE_EQ(status.replicas[0].stages[0].hop.measured_ms, 2);
  EXPECT_DOUBLE_EQ(status.replicas[0].stages[1].hop.measured_ms, 4);
  EXPECT_DOUBLE_EQ(status.replicas[0].answer_hop.predicted_ms, 1);
  EXPECT_DOUBLE_EQ(status.replicas[0].answer_hop.measured_ms, 2);
}

TEST(StatusReportTest, WhereNoHopWasPredictedAllGetTheSame) {
  ClusterView view = ViewOfThree();
  auto placement = std::make_shared<Placement>(*view.replicas[0].placement);
  for (partition::StageTimes& stage : placement->predicted.stages) stage.hop = 0;
  placement->predicted.head = placement->predicted.head_compute;
  view.replicas[0].placement = placement;
  const TestModel model;
  const auto store = model.Open();
  const ClusterStatus status = MakeStatus(view, *store, {}, absl::ZeroDuration());
  for (const StageStatus& stage : status.replicas[0].stages) {
    EXPECT_DOUBLE_EQ(stage.hop.measured_ms, 8.0 / 3);
  }
}

TEST(StatusReportTest, WithoutAPlanThereAreNoStages) {
  const TestModel model;
  const auto store = model.Open();
  EXPECT_TRUE(MakeStatus({}, *store, {}, absl::ZeroDuration()).replicas.empty());
}

}  // namespace
}  // namespace renga::cluster

#include "coordinator/serving/step_costs.h"

#include "gtest/gtest.h"

namespace renga::serving {
namespace {

StepCost Cost(double round_trip_us, double compute_us) {
  return {round_trip_us, compute_us, compute_us};
}

TEST(StepCostsTest, NothingMeasuredIsNothingPredicted) {
  StepCosts costs;
  EXPECT_FALSE(costs.Predict(1).has_value());
  costs.Add(0, Cost(1, 1));
  costs.Add(StepCosts::kMaxRows + 1, Cost(1, 1));
  EXPECT_FALSE(costs.Predict(1).has_value());
}

TEST(StepCostsTest, BeyondWhatWasMeasuredOnlyComputeGrows) {
  StepCosts costs;
  costs.Add(1, Cost(50000, 1000));
  EXPECT_DOUBLE_EQ(costs.Predict(1)->round_trip_us, 50000);
  EXPECT_DOUBLE_EQ(costs.Predict(5)->round_trip_us, 51000);
  EXPECT_DOUBLE_EQ(costs.Predict(5)->busiest_us, 2000);
}

TEST(StepCostsTest, BetweenMeasuredRowsIsALine) {
  StepCosts costs;
  costs.Add(2, Cost(1000, 800));
  costs.Add(6, Cost(3000, 2800));
  EXPECT_DOUBLE_EQ(costs.Predict(3)->round_trip_us, 1500);
  EXPECT_LT(costs.Predict(1)->round_trip_us, 1000);
  EXPECT_GT(costs.Predict(7)->round_trip_us, 3000);
}

TEST(StepCostsTest, FollowsChangesAndNotAHiccup) {
  StepCosts costs;
  for (int i = 0; i < 20; ++i) costs.Add(1, Cost(1000, 1000));
  costs.Add(1, Cost(100000, 1000));
  EXPECT_LT(costs.Predict(1)->round_trip_us, 1300);
  for (int i = 0; i < 40; ++i) costs.Add(1, Cost(3000, 3000));
  EXPECT_NEAR(costs.Predict(1)->round_trip_us, 3000, 30);
}

TEST(StepCostsTest, WhatSlowsOneNumberOfRowsSlowsOthers) {
  StepCosts costs;
  for (int i = 0; i < 20; ++i) costs.Add(1, Cost(1000, 1000));
  for (int i = 0; i < 20; ++i) costs.Add(4, Cost(1500, 1500));
  for (int i = 0; i < 60; ++i) costs.Add(4, Cost(3000, 3000));
  EXPECT_GT(costs.Predict(1)->round_trip_us, 1200);
  EXPECT_LT(costs.Predict(1)->round_trip_us, 2100);
}

TEST(StepCostsTest, AStepsCostIsReadFromItsOutcome) {
  cluster::StepOutcome outcome;
  outcome.round_trip_us = 9000;
  outcome.compute_us = 2300;
  outcome.timings = {{.worker_index = 0, .compute_us = 1000},
                     {.worker_index = 1, .compute_us = 700},
                     {.worker_index = 1, .head = true, .compute_us = 600},
                     {.worker_index = 2, .head = true, .compute_us = 500}};
  const StepCost cost = CostOf(outcome);
  EXPECT_DOUBLE_EQ(cost.round_trip_us, 9000);
  EXPECT_DOUBLE_EQ(cost.compute_us, 2300);
  EXPECT_DOUBLE_EQ(cost.busiest_us, 1300);
}

}  // namespace
}  // namespace renga::serving

#include "coordinator/serving/speculation_policy.h"

#include "coordinator/serving/acceptance.h"
#include "gtest/gtest.h"

namespace renga::serving {
namespace {

using Chances = std::vector<std::vector<double>>;

// A policy that has measured every number of rows: each row beyond the first adds `slope`.
SpeculationPolicy Measured(double slope, double hops_us = 0,
                           SpeculationMode mode = SpeculationMode::kAuto) {
  SpeculationPolicy policy(mode);
  for (int64_t rows = 1; rows <= StepCosts::kMaxRows; ++rows) {
    const double compute = 1000 * (1 + slope * static_cast<double>(rows - 1));
    policy.Measure(rows, false, {compute + hops_us, compute, compute});
  }
  return policy;
}

std::vector<double> Alike(double chance, size_t count = 7) {
  return std::vector<double>(count, chance);
}

TEST(AcceptanceTest, BeginsWithThePriorAndEndsWithWhatWasMeasured) {
  Acceptance acceptance({0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8});
  EXPECT_DOUBLE_EQ(acceptance.Of(3), 0.4);
  for (int i = 0; i < 100; ++i) acceptance.Record(3, i % 4 != 0);
  EXPECT_NEAR(acceptance.Of(3), 0.75, 0.08);
  EXPECT_DOUBLE_EQ(acceptance.Of(4), 0.5);
  for (int i = 0; i < 100; ++i) acceptance.Record(3, false);
  EXPECT_LT(acceptance.Of(3), 0.06);
  for (int i = 0; i < 1000; ++i) acceptance.Record(3, true);
  EXPECT_LE(acceptance.Of(3), Acceptance::kMost);
}

TEST(SpeculationPolicyTest, NothingIsSentBeforeAPlainStepWasMeasured) {
  SpeculationPolicy policy(SpeculationMode::kAuto);
  EXPECT_EQ(policy.Lengths(Chances{Alike(0.95)}, false, 7), std::vector<int64_t>{0});
  policy.Measure(1, false, {1000, 900, 900});
  EXPECT_EQ(policy.Lengths(Chances{Alike(0.95)}, false, 7), std::vector<int64_t>{7});
}

TEST(SpeculationPolicyTest, TheLengthIsTheOneWithTheMostTokensPerTime) {
  // By hand: (1 + 0.5 + 0.25) / 1.2 = 1.46 is more than 1.5 / 1.1 = 1.36 and 1.875 / 1.3 = 1.44.
  EXPECT_EQ(Measured(0.1).Lengths(Chances{Alike(0.5)}, false, 7), std::vector<int64_t>{2});
  EXPECT_EQ(Measured(0.1).Lengths(Chances{Alike(0.95)}, false, 7), std::vector<int64_t>{7});
  EXPECT_EQ(Measured(0.1).Lengths(Chances{Alike(0.05)}, false, 7), std::vector<int64_t>{0});
  EXPECT_EQ(Measured(1.0).Lengths(Chances{Alike(0.95)}, false, 7), std::vector<int64_t>{0});
  EXPECT_EQ(Measured(0.1).Lengths(Chances{{}}, false, 7), std::vector<int64_t>{0});
  // Long links make rows cheap.
  EXPECT_EQ(Measured(0.1, 60000).Lengths(Chances{Alike(0.3)}, false, 7), std::vector<int64_t>{5});
}

TEST(SpeculationPolicyTest, AsManyAreComputedAsPayForTheirTime) {
  // By hand, a guess at a tenth of a step of 1000 us: 1.5 / 1.1, 1.75 / 1.2 = 1.46, 1.875 / 1.3.
  EXPECT_EQ(Measured(0).WorthComputing(0.5, 100, 1, false), 2);
  EXPECT_EQ(Measured(0).WorthComputing(0.9, 10, 1, false), 7);
  EXPECT_EQ(Measured(0).WorthComputing(0.9, 1000, 1, false), 0);
  EXPECT_EQ(Measured(0).WorthComputing(0.05, 100, 1, false), 0);
  // Four answers wait for each other's guesses: 1.5 / 1.4 is left of it.
  EXPECT_EQ(Measured(0).WorthComputing(0.5, 100, 4, false), 1);
  EXPECT_EQ(Measured(0).WorthComputing(0.5, 0, 1, false), 1);
  EXPECT_EQ(SpeculationPolicy(SpeculationMode::kAuto).WorthComputing(0.9, 10, 1, false), 0);
  EXPECT_EQ(Measured(0, 0, SpeculationMode::kLookup).WorthComputing(0.9, 10, 1, false), 0);
}

TEST(SpeculationPolicyTest, ComputingIsTriedAgainNowAndThen) {
  SpeculationPolicy policy = Measured(0);
  int64_t computed = 0;
  for (int i = 0; i < 1000; ++i) computed += policy.WorthComputing(0.1, 500, 1, false);
  EXPECT_GT(computed, 0);
  EXPECT_LE(500 * computed, 1000 * 1000 / 100);  // a hundredth of the time
}

TEST(SpeculationPolicyTest, RowsOfAllLogitsHaveCostsOfTheirOwn) {
  SpeculationPolicy policy = Measured(0.1);
  policy.Measure(1, true, {1000, 100, 100});
  policy.Measure(8, true, {8000, 200, 200});
  EXPECT_EQ(policy.Lengths(Chances{Alike(0.95)}, true, 7), std::vector<int64_t>{0});
  EXPECT_EQ(policy.Lengths(Chances{Alike(0.95)}, false, 7), std::vector<int64_t>{7});
}

TEST(SpeculationPolicyTest, RoomGoesToTheLikeliestGuesses) {
  SpeculationPolicy policy = Measured(0.01);
  EXPECT_EQ(policy.Lengths(Chances{Alike(0.9), Alike(0.5), {}}, false, 5),
            (std::vector<int64_t>{5, 0, 0}));
  EXPECT_EQ(policy.Lengths(Chances{Alike(0.5), Alike(0.9, 2)}, false, 4),
            (std::vector<int64_t>{2, 2}));
  EXPECT_EQ(policy.Lengths(Chances{Alike(0.9)}, false, 0), std::vector<int64_t>{0});
}

TEST(SpeculationPolicyTest, TheModeDecidesBeforeTheNumbersDo) {
  EXPECT_EQ(Measured(1.0, 0, SpeculationMode::kLookup).Lengths(Chances{Alike(0.05)}, false, 7),
            std::vector<int64_t>{7});
  EXPECT_EQ(Measured(0.01, 0, SpeculationMode::kOff).Lengths(Chances{Alike(0.95)}, false, 7),
            std::vector<int64_t>{0});
  EXPECT_EQ(Measured(0.01, 90000, SpeculationMode::kOff).Stream(Alike(0.95), 0, 7, 12).rows, 0);
}

TEST(SpeculationPolicyTest, DearRowsAreTriedAgainRarelyAndPlainStepsMeasuredNowAndThen) {
  SpeculationPolicy dear = Measured(1.0);
  SpeculationPolicy cheap = Measured(0.01);
  int64_t tried = 0;
  int64_t plain = 0;
  for (int i = 0; i < 2000; ++i) {
    tried += dear.Lengths(Chances{Alike(0.95)}, false, 7)[0] > 0 ? 1 : 0;
    plain += cheap.Lengths(Chances{Alike(0.95)}, false, 7)[0] == 0 ? 1 : 0;
  }
  EXPECT_EQ(tried, 2000 / 513);
  EXPECT_EQ(plain, 2000 / 129);
  // Guesses that would not pay if rows were free are not worth a try.
  for (int i = 0; i < 2000; ++i) EXPECT_EQ(dear.Lengths(Chances{Alike(0.1)}, false, 7)[0], 0);
}

TEST(SpeculationPolicyTest, StreamsWhereMostOfAStepIsWaiting) {
  // One worker, no hops: there is nothing to overlap.
  EXPECT_EQ(Measured(0.1).Stream(Alike(0.95), 0, 7, 12).rows, 0);
  const FrameStream stream = Measured(0.1, 60000).Stream(Alike(0.95), 0, 7, 12);
  EXPECT_GT(stream.rows, 0);
  EXPECT_EQ(stream.frames, 12);
  EXPECT_GE(stream.interval, absl::Milliseconds(5));
  // Guesses that mostly fail are better sent a few at a time.
  EXPECT_EQ(Measured(0.1, 60000).Stream(Alike(0.2), 0, 3, 12).rows, 0);
  EXPECT_EQ(Measured(0.1, 60000).Stream({}, 0, 0, 12).rows, 0);
  EXPECT_EQ(Measured(0.1, 60000).Stream(Alike(0.95), 0, 7, 1).rows, 0);
}

}  // namespace
}  // namespace renga::serving

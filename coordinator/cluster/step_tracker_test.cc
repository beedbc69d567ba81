#include "coordinator/cluster/step_tracker.h"

#include <gtest/gtest.h>

#include <vector>

#include "absl/time/time.h"
#include "base/testing/status_matchers.h"

namespace renga::cluster {
namespace {

constexpr uint32_t kStage = 0;
constexpr uint32_t kOtherStage = 1;
constexpr uint32_t kHead = 2;
constexpr int64_t kVocabulary = 100;

absl::Duration At(int64_t seconds) { return absl::Seconds(seconds); }

class StepTrackerTest : public ::testing::Test {
 protected:
  // At `seconds`.
  uint64_t Begin(int64_t seconds) {
    model::Step step;
    step.slots.push_back({.sequence = 1, .token_count = 1});
    return tracker_.Begin(
        step, [](const absl::StatusOr<StepOutcome>&) {}, At(seconds));
  }
  void Hear(uint32_t worker, uint64_t step, int64_t weight_bytes, int64_t seconds) {
    tracker_.Heard(worker, {.step = step, .weight_bytes = weight_bytes}, At(seconds));
  }
  void Answer(uint64_t number, int64_t seconds) {
    ASSERT_OK_AND_ASSIGN(const auto finished,
                         tracker_.Answer(kHead, {.number = number}, At(seconds)));
    ASSERT_TRUE(finished.has_value());
  }
  // The oldest step stands still since then, and whether weights came for it.
  void ExpectSince(int64_t seconds, bool weights_came) {
    EXPECT_EQ(tracker_.standstill().since, At(seconds));
    EXPECT_EQ(tracker_.standstill().weights_came, weights_came);
  }

  StepTracker tracker_{{model::BlockRows(model::Range{0, 0}), model::BlockRows(model::Range{0, 0}),
                        model::BlockRows(model::Range{0, kVocabulary})}};
};

TEST_F(StepTrackerTest, NothingStandsStillWithoutSteps) {
  EXPECT_EQ(tracker_.standstill().since, absl::InfiniteDuration());
  const uint64_t step = Begin(10);
  ExpectSince(10, false);
  Answer(step, 11);
  EXPECT_EQ(tracker_.standstill().since, absl::InfiniteDuration());
}

TEST_F(StepTrackerTest, OnlyMoreWeightsAreProgress) {
  const uint64_t step = Begin(10);
  Hear(kStage, step, 0, 20);
  ExpectSince(10, false);
  Hear(kStage, step, 5, 30);
  ExpectSince(30, true);
  Hear(kStage, step, 5, 40);
  ExpectSince(30, true);
  Hear(kStage, step, 6, 50);
  ExpectSince(50, true);
  // It has lost its shard and begun anew: what is more than that counts.
  Hear(kStage, step, 1, 60);
  ExpectSince(50, true);
  Hear(kStage, step, 2, 70);
  ExpectSince(70, true);
}

TEST_F(StepTrackerTest, WhatCameBeforeIsNoProgressLater) {
  Hear(kStage, 0, 100, 5);
  const uint64_t step = Begin(10);
  Hear(kStage, step, 100, 20);
  ExpectSince(10, false);
}

// A stage that works ahead on the next step does not excuse the one that is stuck with this.
TEST_F(StepTrackerTest, OnlyWhoIsAtTheOldestStepCounts) {
  const uint64_t first = Begin(10);
  const uint64_t second = Begin(11);
  Hear(kStage, second, 50, 20);
  Hear(kOtherStage, first, 0, 20);
  ExpectSince(10, false);
  Hear(kOtherStage, first, 1, 30);
  ExpectSince(30, true);
}

TEST_F(StepTrackerTest, WhatCameForAStepHeldUpThoseBehindIt) {
  const uint64_t first = Begin(10);
  const uint64_t second = Begin(11);
  Hear(kStage, first, 50, 1000);
  Answer(first, 1001);
  ExpectSince(1000, true);
  Hear(kStage, second, 51, 1100);
  ExpectSince(1100, true);
  Answer(second, 1101);
  Begin(1200);
  ExpectSince(1200, false);
}

TEST_F(StepTrackerTest, IdleWorkersThatLoadAreNotAtAnyStep) {
  Begin(10);
  Hear(kStage, 0, 50, 20);
  ExpectSince(10, false);
}

}  // namespace
}  // namespace renga::cluster

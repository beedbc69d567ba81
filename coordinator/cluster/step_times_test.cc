#include "coordinator/cluster/step_times.h"

#include "gtest/gtest.h"

namespace renga::cluster {
namespace {

StepOutcome OutcomeOf(uint64_t round_trip_us, std::vector<StageTiming> timings) {
  StepOutcome outcome;
  outcome.round_trip_us = round_trip_us;
  outcome.timings = std::move(timings);
  return outcome;
}

// Two members that work side by side, then one worker; two head blocks, side by side too.
TEST(StepTimesTest, MembersOfAStageAndHeadBlocksWorkSideBySide) {
  const std::vector<std::vector<uint32_t>> stages = {{0, 1}, {2}};
  const StepOutcome outcome =
      OutcomeOf(9000, {{.worker_index = 0, .compute_us = 1000, .exchange_us = 300},
                       {.worker_index = 1, .queue_us = 50, .compute_us = 1200, .exchange_us = 100},
                       {.worker_index = 2, .queue_us = 20, .compute_us = 2000},
                       {.worker_index = 2, .head = true, .compute_us = 600},
                       {.worker_index = 0, .head = true, .compute_us = 500}});
  const WorkerMicroseconds spent = SpentOnWorkers(outcome.timings, stages);
  EXPECT_DOUBLE_EQ(spent.compute, 1200 + 2000 + 600);
  EXPECT_DOUBLE_EQ(spent.queue, 50 + 20);

  StepTimes times(3, stages);
  model::Step step;
  step.slots.push_back({.sequence = 1, .token_count = 1, .output_count = 1});
  times.Add(step, outcome);
  const PipelineTimes read = times.Read();
  EXPECT_DOUBLE_EQ(read.decode_network_us, 9000 - 3800 - 70);
  EXPECT_DOUBLE_EQ(read.workers[0].decode_exchange_us, 300);
  EXPECT_DOUBLE_EQ(read.workers[1].decode_layers_us, 1200);
  EXPECT_DOUBLE_EQ(read.workers[2].decode_exchange_us, 0);
  EXPECT_DOUBLE_EQ(read.decode_totals.compute_us, 3800);
}

}  // namespace
}  // namespace renga::cluster

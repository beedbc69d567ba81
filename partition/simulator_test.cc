// The simulator against closed forms.
#include "partition/simulator.h"

#include <cmath>
#include <vector>

#include "base/testing/status_matchers.h"

namespace renga::partition {
namespace {

using ::renga::testing::StatusIs;

// Stages of the given times whatever the rows, hops of `hop` ms of which `transfer` are the link's.
StepTimes Stages(std::vector<double> compute, double hop = 0, double transfer = 0,
                 double head = 0) {
  PlanTimes times;
  for (const double ms : compute) {
    times.stages.push_back({.hop = hop, .transfer = transfer, .compute = ms, .sums = 0});
  }
  times.head = head;
  return [times](int64_t) { return times; };
}

TEST(SimulatorTest, OneStreamIsTheSumOfItsParts) {
  SimulationRequest request{.prompt_tokens = 1, .answer_tokens = 50};
  ASSERT_OK_AND_ASSIGN(const SimulationResult result,
                       Simulate(Stages({3, 5, 4}, 0.5, 0.25, 2), request));
  EXPECT_NEAR(result.ms_per_token, 12 + 1.5 + 2, 1e-9);
  EXPECT_NEAR(result.first_token_ms, 15.5, 1e-9);
  EXPECT_NEAR(result.tokens_per_second, 1e3 / 15.5, 1e-9);
}

// (C + N - 1) t: C chunks through N equal stages.
TEST(SimulatorTest, PromptsFillThePipeline) {
  for (const int64_t stages : {1, 3, 8}) {
    for (const int64_t chunks : {1, 4, 16}) {
      SimulationRequest request{
          .prompt_tokens = chunks * 64, .answer_tokens = 1, .chunk_tokens = 64};
      ASSERT_OK_AND_ASSIGN(const SimulationResult result,
                           Simulate(Stages(std::vector<double>(stages, 7.0)), request));
      EXPECT_NEAR(result.first_token_ms, 7.0 * static_cast<double>(chunks + stages - 1), 1e-9);
    }
  }
}

// min(N / sum of stages, 1 / slowest stage), long after the start.
TEST(SimulatorTest, StreamsShareTheStages) {
  for (const int64_t streams : {1, 2, 3, 4, 12}) {
    SimulationRequest request{.streams = streams, .prompt_tokens = 1, .answer_tokens = 2000};
    ASSERT_OK_AND_ASSIGN(const SimulationResult result, Simulate(Stages({2, 5, 3}, 0.5), request));
    const double alone = static_cast<double>(streams) / (10 + 1.5) * 1e3;
    EXPECT_NEAR(result.tokens_per_second, std::min(alone, 1e3 / 5), 2.0) << streams;
    if (streams == 12) {
      EXPECT_NEAR(result.busiest_stage, 1.0, 0.01);
    }
  }
}

// A link that is busy longer than any stage bounds the streams.
TEST(SimulatorTest, LinksAreBusyToo) {
  SimulationRequest request{.streams = 12, .prompt_tokens = 1, .answer_tokens = 1000};
  ASSERT_OK_AND_ASSIGN(const SimulationResult result, Simulate(Stages({2, 2}, 9, 8), request));
  EXPECT_NEAR(result.tokens_per_second, 1e3 / 8, 2.0);
}

// E / v: (1 - a^(d+1)) / (1 - a) tokens for a step of d + 1 rows.
TEST(SimulatorTest, SpeculationGivesItsExpectation) {
  const StepTimes times = [](int64_t rows) {
    PlanTimes made;
    made.stages.push_back({.compute = 10.0 * (1 + 0.1 * static_cast<double>(rows - 1))});
    return made;
  };
  for (const double acceptance : {0.0, 0.5, 0.8, 1.0}) {
    SimulationRequest request{.prompt_tokens = 1,
                              .answer_tokens = 400,
                              .draft_tokens = 4,
                              .acceptance = acceptance,
                              .draft_ms = 1};
    ASSERT_OK_AND_ASSIGN(const SimulationResult result, Simulate(times, request));
    const double expected = acceptance == 1 ? 5 : (1 - std::pow(acceptance, 5)) / (1 - acceptance);
    EXPECT_NEAR(result.ms_per_token, (14 + 1) / expected, 1e-6);
  }
}

TEST(SimulatorTest, BadNumbersAreRefused) {
  const auto refuses = [](auto change) {
    SimulationRequest request;
    change(request);
    EXPECT_THAT(Simulate(Stages({1}), request), StatusIs(absl::StatusCode::kInvalidArgument));
  };
  refuses([](SimulationRequest& r) { r.streams = 0; });
  refuses([](SimulationRequest& r) { r.prompt_tokens = 0; });
  refuses([](SimulationRequest& r) { r.answer_tokens = INT64_MAX; });
  refuses([](SimulationRequest& r) { r.chunk_tokens = 0; });
  refuses([](SimulationRequest& r) { r.draft_tokens = -1; });
  refuses([](SimulationRequest& r) { r.acceptance = NAN; });
  refuses([](SimulationRequest& r) { r.acceptance = 1.5; });
  refuses([](SimulationRequest& r) { r.draft_ms = -1; });
  refuses([](SimulationRequest& r) { r.streams = r.answer_tokens = 100'000; });
}

}  // namespace
}  // namespace renga::partition

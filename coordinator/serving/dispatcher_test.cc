#include "coordinator/serving/dispatcher.h"

#include <memory>
#include <tuple>
#include <vector>

#include "base/testing/status_matchers.h"
#include "coordinator/serving/testing/fake_pipeline.h"
#include "coordinator/serving/testing/scheduler_bench.h"
#include "gtest/gtest.h"

namespace renga::serving {
namespace {

using ::renga::testing::StatusIs;
using ::testing::HasSubstr;

// Two replicas and a scheduler over both.
class Replicas {
 public:
  explicit Replicas(const FakePipelineOptions& options, SchedulerOptions scheduling = {}) {
    for (int i = 0; i < 2; ++i) {
      pipelines.push_back(std::make_shared<FakePipeline>(options));
      sources.push_back(std::make_unique<FakePipelineSource>(pipelines.back()));
      scheduling.replicas.push_back(sources.back().get());
    }
    scheduling.is_end_token = [](TokenId) { return false; };
    scheduler = std::make_unique<Scheduler>(std::move(scheduling));
  }
  ~Replicas() {
    scheduler.reset();
    for (const auto& pipeline : pipelines) EXPECT_OK(pipeline->Violation());
  }

  std::vector<std::shared_ptr<FakePipeline>> pipelines;
  std::vector<std::unique_ptr<FakePipelineSource>> sources;
  std::unique_ptr<Scheduler> scheduler;
};

TEST(DispatcherTest, RequestsAreSharedOutAndTokensAreTheSame) {
  Replicas replicas({.stage_count = 2, .kv_blocks = 64});
  for (const auto& pipeline : replicas.pipelines) pipeline->Hold();
  const std::vector<GenerateRequest> requests = SomeOfEachKind(20);
  std::vector<Answer> answers(requests.size());
  for (size_t i = 0; i < requests.size(); ++i) answers[i].Start(*replicas.scheduler, requests[i]);
  for (const auto& pipeline : replicas.pipelines) {
    ASSERT_TRUE(pipeline->AwaitSteps(1));
    pipeline->Release();
  }
  for (size_t i = 0; i < requests.size(); ++i) {
    ASSERT_OK(answers[i].Wait());
    EXPECT_EQ(answers[i].tokens(), Reference(requests[i], 20 + static_cast<int64_t>(i)));
  }
  replicas.scheduler->Stop();  // what its last turn counted is told after the last answer
  const ServingStats stats = replicas.scheduler->Stats();
  EXPECT_EQ(stats.replicas, 2);
  EXPECT_EQ(stats.kv_blocks, 128);
  EXPECT_EQ(stats.requests_finished, 4u);
  EXPECT_EQ(stats.steps,
            replicas.pipelines[0]->Steps().size() + replicas.pipelines[1]->Steps().size());
}

TEST(DispatcherTest, ALoneRequestTakesTheFirstReplica) {
  Replicas replicas({});
  for (int i = 0; i < 3; ++i) {
    Answer answer;
    answer.Start(*replicas.scheduler, {.prompt = Prompt(9, 1), .max_tokens = 2});
    ASSERT_OK(answer.Wait());
  }
  EXPECT_EQ(replicas.pipelines[1]->Steps().size(), 0u);
}

// Replicas are small: each runs one request while another waits for blocks.
TEST(DispatcherTest, ABreakEndsWhatRunsThereAndMovesWhatWaits) {
  Replicas replicas({.stage_count = 2, .kv_blocks = 4});
  for (const auto& pipeline : replicas.pipelines) pipeline->Hold();
  const GenerateRequest request{.prompt = Prompt(90, 1), .max_tokens = 30};
  std::vector<Answer> answers(4);
  for (Answer& answer : answers) answer.Start(*replicas.scheduler, request);
  for (const auto& pipeline : replicas.pipelines) ASSERT_TRUE(pipeline->AwaitSteps(1));
  replicas.sources[1]->Set(nullptr);
  replicas.pipelines[1]->Break(absl::UnavailableError("worker 'attic' is gone"));
  replicas.pipelines[0]->Release();
  // The second request was the first of the second replica.
  EXPECT_THAT(answers[1].Wait(), StatusIs(absl::StatusCode::kUnavailable, HasSubstr("attic")));
  for (const size_t other : {0, 2, 3}) {
    ASSERT_OK(answers[other].Wait());
    EXPECT_EQ(answers[other].tokens(), Reference(request, 30));
  }
}

TEST(DispatcherTest, AReplicaThatIsPlannedAnewGetsNothingWhileOthersAreThere) {
  FakePipelineOptions options{.stage_count = 1, .kv_blocks = 8, .step_time = absl::Milliseconds(1)};
  Replicas replicas(options);
  const GenerateRequest request{.prompt = Prompt(40, 1), .max_tokens = 40};
  Answer first;
  Answer moved;
  first.Start(*replicas.scheduler, request);
  moved.Start(*replicas.scheduler, request);
  ASSERT_TRUE(replicas.pipelines[1]->AwaitSteps(4));
  replicas.pipelines[1]->Hold();
  replicas.sources[1]->Set(nullptr);
  replicas.pipelines[1]->Break(absl::AbortedError("worker 'attic' offers less: planning anew"));
  for (int i = 0; i < 3; ++i) {
    Answer late;
    late.Start(*replicas.scheduler, {.prompt = Prompt(9, 2), .max_tokens = 2});
    ASSERT_OK(late.Wait());
  }
  // What had begun there is replayed there.
  EXPECT_FALSE(moved.done());
  options.epoch = 2;
  const auto next = std::make_shared<FakePipeline>(options);
  replicas.sources[1]->Set(next);
  ASSERT_OK(first.Wait());
  ASSERT_OK(moved.Wait());
  EXPECT_EQ(moved.tokens(), Reference(request, 40));
  EXPECT_GT(next->Steps().size(), 0u);
  EXPECT_OK(next->Violation());
}

TEST(DispatcherTest, RequestsOfAllReplicasCountAgainstTheLimit) {
  Replicas replicas({}, {.max_requests = 2});
  for (const auto& pipeline : replicas.pipelines) pipeline->Hold();
  std::vector<Answer> answers(3);
  for (Answer& answer : answers) {
    answer.Start(*replicas.scheduler, {.prompt = Prompt(9, 1), .max_tokens = 2});
  }
  EXPECT_THAT(answers[2].Wait(), StatusIs(absl::StatusCode::kResourceExhausted));
  for (const auto& pipeline : replicas.pipelines) pipeline->Release();
  ASSERT_OK(answers[0].Wait());
  ASSERT_OK(answers[1].Wait());
}

// Every number: one that is forgotten is a replica that nobody sees.
TEST(ServingStatsTest, AllCountsAreAddedUp) {
  ServingStats one{.requests_waiting = 1,
                   .requests_running = 2,
                   .steps_in_flight = 3,
                   .kv_blocks = 4,
                   .kv_blocks_free = 5,
                   .replicas = 6,
                   .epoch = 7,
                   .stage_count = 8,
                   .requests_finished = 9,
                   .requests_cancelled = 10,
                   .requests_failed = 11,
                   .prompt_tokens = 12,
                   .generated_tokens = 13,
                   .steps = 14,
                   .preemptions = 15,
                   .drafted_tokens = 16,
                   .accepted_tokens = 17,
                   .saved_steps = -18,
                   .skipped_steps = 5,
                   .left_out = 19,
                   .step_time = {},
                   .first_token_time = {},
                   .stage_timings = {},
                   .round_trip_us = 20};
  one.step_time.Add(0.002);
  one.first_token_time.Add(90);
  ServingStats sum = one;
  sum.Add(one);
  EXPECT_EQ(std::tie(sum.requests_waiting, sum.requests_running, sum.steps_in_flight, sum.kv_blocks,
                     sum.kv_blocks_free, sum.replicas, sum.stage_count),
            std::make_tuple(2, 4, 6, 8, 10, 12, 16));
  EXPECT_EQ(sum.epoch, 7u) << "the newest";
  EXPECT_EQ(std::tie(sum.requests_finished, sum.requests_cancelled, sum.requests_failed,
                     sum.prompt_tokens, sum.generated_tokens, sum.steps, sum.preemptions,
                     sum.drafted_tokens, sum.accepted_tokens, sum.left_out),
            std::make_tuple(18u, 20u, 22u, 24u, 26u, 28u, 30u, 32u, 34u, 38u));
  EXPECT_EQ(sum.saved_steps, -36);
  EXPECT_EQ(sum.skipped_steps, 10u);
  EXPECT_EQ(sum.step_time.count, 2u);
  EXPECT_EQ(sum.step_time.counts[1], 2u);
  EXPECT_EQ(sum.first_token_time.sum_seconds, 180);
  EXPECT_EQ(sum.round_trip_us, 20u) << "of the newest step";
}

}  // namespace
}  // namespace renga::serving

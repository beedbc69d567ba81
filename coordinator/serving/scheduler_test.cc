#include "coordinator/serving/scheduler.h"

#include <algorithm>
#include <memory>
#include <numeric>
#include <optional>
#include <random>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/synchronization/notification.h"
#include "base/testing/status_matchers.h"
#include "coordinator/serving/kv_blocks.h"
#include "coordinator/serving/testing/fake_pipeline.h"
#include "coordinator/serving/testing/scheduler_bench.h"

namespace renga::serving {
namespace {

using renga::testing::StatusIs;
using ::testing::AllOf;
using ::testing::HasSubstr;

constexpr int64_t kVocab = kToyVocab;

TEST(SchedulerTest, OneRequestGivesTheModelsTokens) {
  Bench bench;
  Answer answer;
  const GenerateRequest request{.prompt = Prompt(50, 1), .max_tokens = 100};
  answer.Start(*bench.scheduler, request);
  ASSERT_OK_AND_ASSIGN(GenerateResult result, answer.Wait());
  EXPECT_EQ(answer.tokens(), Reference(request, 100));
  EXPECT_EQ(result.reason, FinishReason::kLength);
  EXPECT_EQ(result.usage.prompt_tokens, 50);
  EXPECT_EQ(result.usage.completion_tokens, 100);
  // The last token is never computed: there is nobody to answer.
  EXPECT_EQ(bench.pipeline->Steps().size(), 100u);
}

TEST(SchedulerTest, TokensDoNotDependOnTheCompany) {
  std::vector<GenerateRequest> requests;
  for (uint32_t i = 0; i < 12; ++i) {
    GenerateRequest request{.prompt = Prompt(1 + 23 * i, i), .max_tokens = 20 + 3 * i};
    request.sampling = {.temperature = 0.5 * (i % 4),
                        .top_k = i % 3 == 0 ? 0 : 20,
                        .repetition_penalty = i % 5 == 0 ? 1.2 : 1.0,
                        .seed = i};
    request.chunk_tokens = i % 4 == 1 ? 7 : 0;
    requests.push_back(request);
  }
  for (const int64_t stages : {1, 2, 4}) {
    for (const int64_t chunk : {1, 16, 128}) {
      Bench bench({.stage_count = stages,
                   .kv_blocks = 200,
                   .max_step_tokens = 64 + chunk,
                   .max_step_outputs = 5},
                  {.prefill_chunk = chunk, .max_steps_in_flight = chunk == 16 ? 7 : 0});
      std::vector<Answer> answers(requests.size());
      for (size_t i = 0; i < requests.size(); ++i) answers[i].Start(*bench.scheduler, requests[i]);
      for (size_t i = 0; i < requests.size(); ++i) {
        ASSERT_OK(answers[i].Wait()) << "request " << i;
        EXPECT_EQ(answers[i].tokens(), Reference(requests[i], requests[i].max_tokens))
            << "request " << i << ", " << stages << " stages, chunks of " << chunk;
      }
      EXPECT_LE(bench.pipeline->MaxInFlight(), chunk == 16 ? 7 : stages + 2);
    }
  }
}

TEST(SchedulerTest, PromptChunksFollowEachOtherWithoutWaiting) {
  Bench bench({.stage_count = 3}, {.prefill_chunk = 32});
  bench.pipeline->Hold();
  Answer answer;
  answer.Start(*bench.scheduler, {.prompt = Prompt(300, 2), .max_tokens = 2});
  ASSERT_TRUE(bench.pipeline->AwaitSteps(5));
  std::vector<model::Step> steps = bench.pipeline->Steps();
  for (size_t i = 0; i < 5; ++i) {
    EXPECT_EQ(steps[i].slots.at(0).first_position, static_cast<int64_t>(32 * i));
    EXPECT_EQ(steps[i].slots.at(0).output_count, 0);
  }
  bench.pipeline->Release();
  ASSERT_OK(answer.Wait());
  EXPECT_EQ(bench.pipeline->Steps().size(), 11u);
  EXPECT_EQ(bench.pipeline->MaxInFlight(), 5);
}

TEST(SchedulerTest, PromptsFlowThroughStagesInSmallPieces) {
  for (const int stages : {2, 3, 8}) {
    Bench bench({.stage_count = stages});
    Answer answer;
    answer.Start(*bench.scheduler, {.prompt = Prompt(130, 2), .max_tokens = 1});
    ASSERT_OK(answer.Wait());
    const auto steps = bench.pipeline->Steps();
    ASSERT_EQ(steps.size(), 5u) << stages << " stages";
    for (size_t i = 0; i < 4; ++i) EXPECT_EQ(steps[i].token_count(), 32) << stages << " stages";
  }
}

TEST(SchedulerTest, OneStageTakesALonePromptInLargePieces) {
  Bench bench({.stage_count = 1, .max_step_tokens = 256}, {.prefill_chunk = 32});
  Answer answer;
  answer.Start(*bench.scheduler, {.prompt = Prompt(300, 2), .max_tokens = 1});
  ASSERT_OK(answer.Wait());
  EXPECT_EQ(bench.pipeline->Steps().size(), 2u);
}

TEST(SchedulerTest, DecodesShareTheStepOfOneStageAndSplitOverTwo) {
  for (const int64_t stages : {1, 2}) {
    Bench bench({.stage_count = stages});
    std::vector<Answer> answers(4);
    for (uint32_t i = 0; i < 4; ++i) {
      answers[i].Start(*bench.scheduler, {.prompt = Prompt(4, i), .max_tokens = 60});
    }
    for (Answer& answer : answers) ASSERT_OK(answer.Wait());
    size_t largest = 0;
    for (const model::Step& step : bench.pipeline->Steps()) {
      int64_t tokens = step.token_count();
      if (tokens == static_cast<int64_t>(step.slots.size())) {
        largest = std::max(largest, step.slots.size());
      }
    }
    EXPECT_EQ(largest, stages == 1 ? 4u : 2u);
  }
}

// The index of the last step with a slot of this sequence.
int64_t LastStepOf(model::SequenceId sequence, const std::vector<model::Step>& steps) {
  int64_t last = -1;
  for (size_t i = 0; i < steps.size(); ++i) {
    for (const model::StepSlot& slot : steps[i].slots) {
      if (slot.sequence == sequence) last = static_cast<int64_t>(i);
    }
  }
  return last;
}

TEST(SchedulerTest, ALongPromptStallsNobody) {
  Bench bench({.stage_count = 1, .kv_blocks = 400, .max_step_tokens = 512}, {.prefill_chunk = 64});
  Answer talking;
  talking.Start(*bench.scheduler, {.prompt = Prompt(4, 1), .max_tokens = 500});
  ASSERT_TRUE(bench.pipeline->AwaitSteps(20));
  bench.pipeline->Hold();
  Answer long_prompt;
  long_prompt.Start(*bench.scheduler, {.prompt = Prompt(4000, 2), .max_tokens = 1});
  Answer short_prompt;
  short_prompt.Start(*bench.scheduler, {.prompt = Prompt(40, 3), .max_tokens = 1});
  bench.pipeline->Release();
  ASSERT_OK(short_prompt.Wait());
  ASSERT_OK(long_prompt.Wait());
  ASSERT_OK(talking.Wait());
  const std::vector<model::Step> steps = bench.pipeline->Steps();
  EXPECT_LT(LastStepOf(3, steps), LastStepOf(2, steps));
  // While the prompt was computed no step had more of it than a chunk, and answers went on.
  int64_t in_a_row = 0;
  for (const model::Step& step : steps) {
    EXPECT_LE(step.token_count(), 64 + 2);
    const bool answers = std::any_of(step.slots.begin(), step.slots.end(),
                                     [](const auto& slot) { return slot.token_count == 1; });
    in_a_row = answers ? 0 : in_a_row + 1;
    EXPECT_LE(in_a_row, 2);
  }
}

TEST(SchedulerTest, EndTokensStopUnlessIgnored) {
  const GenerateRequest request{.prompt = Prompt(9, 4), .max_tokens = 30};
  const std::vector<TokenId> expected = Reference(request, 30);
  const auto end = std::find(expected.begin(), expected.end(), expected[6]);
  Bench bench({}, {.is_end_token = [&](TokenId token) { return token == expected[6]; }});
  Answer stopped;
  stopped.Start(*bench.scheduler, request);
  ASSERT_OK_AND_ASSIGN(GenerateResult result, stopped.Wait());
  EXPECT_EQ(result.reason, FinishReason::kStop);
  EXPECT_EQ(stopped.tokens(), std::vector<TokenId>(expected.begin(), end));
  EXPECT_EQ(result.usage.completion_tokens, end - expected.begin() + 1);

  Answer going_on;
  GenerateRequest ignoring = request;
  ignoring.ignore_eos = true;
  going_on.Start(*bench.scheduler, ignoring);
  ASSERT_OK(going_on.Wait());
  EXPECT_EQ(going_on.tokens(), expected);
}

TEST(SchedulerTest, TheSinkCanStop) {
  Bench bench;
  Answer answer;
  answer.StopAfter(5);
  answer.Start(*bench.scheduler, {.prompt = Prompt(9, 4), .max_tokens = 30});
  ASSERT_OK_AND_ASSIGN(GenerateResult result, answer.Wait());
  EXPECT_EQ(result.reason, FinishReason::kStop);
  EXPECT_EQ(answer.tokens().size(), 5u);
}

TEST(SchedulerTest, WithoutMaxTokensTheContextIsTheLimit) {
  Bench bench({.kv_blocks = 4});
  Answer answer;
  const GenerateRequest request{.prompt = Prompt(100, 8)};
  answer.Start(*bench.scheduler, request);
  ASSERT_OK_AND_ASSIGN(GenerateResult result, answer.Wait());
  EXPECT_EQ(result.reason, FinishReason::kLength);
  EXPECT_EQ(answer.tokens(), Reference(request, 28));
}

TEST(SchedulerTest, RefusesWhatCanNeverFit) {
  Bench bench({.kv_blocks = 4}, {.context_tokens = 100});
  const auto refusal = [&](GenerateRequest request) {
    Answer answer;
    answer.Start(*bench.scheduler, std::move(request));
    return answer.Wait();
  };
  EXPECT_THAT(
      refusal({.prompt = Prompt(101, 1)}),
      StatusIs(absl::StatusCode::kInvalidArgument, AllOf(HasSubstr("101"), HasSubstr("100"))));
  EXPECT_THAT(
      refusal({.prompt = Prompt(60, 1), .max_tokens = 41}),
      StatusIs(absl::StatusCode::kInvalidArgument, AllOf(HasSubstr("60"), HasSubstr("41"))));
  EXPECT_THAT(refusal({.prompt = Prompt(100, 1)}), StatusIs(absl::StatusCode::kInvalidArgument));
  EXPECT_THAT(refusal({.prompt = {}}), StatusIs(absl::StatusCode::kInvalidArgument));
  EXPECT_THAT(refusal({.prompt = {64}}), StatusIs(absl::StatusCode::kInvalidArgument));
  EXPECT_THAT(refusal({.prompt = {1}, .max_tokens = -1}),
              StatusIs(absl::StatusCode::kInvalidArgument));
  EXPECT_THAT(refusal({.prompt = {1}, .sampling = {.temperature = -1}}),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("temperature")));
  EXPECT_THAT(refusal({.prompt = {1}, .alternatives = 21}),
              StatusIs(absl::StatusCode::kInvalidArgument));
  EXPECT_OK(refusal({.prompt = Prompt(60, 1), .max_tokens = 40}));
}

TEST(SchedulerTest, ShortOfBlocksRequestsWaitAndAreSentBack) {
  // Ten answers of up to 128 positions on 5 blocks of 32: each fits alone, no two of them do.
  Bench bench({.stage_count = 2, .kv_blocks = 5});
  std::vector<GenerateRequest> requests;
  std::vector<Answer> answers(10);
  for (uint32_t i = 0; i < 10; ++i) {
    requests.push_back({.prompt = Prompt(20 + i, i), .max_tokens = 100});
    requests[i].sampling = {.temperature = 1, .top_k = 30, .seed = i};
    answers[i].Start(*bench.scheduler, requests[i]);
  }
  for (size_t i = 0; i < 10; ++i) {
    ASSERT_OK(answers[i].Wait()) << i;
    EXPECT_EQ(answers[i].tokens(), Reference(requests[i], 100)) << i;
  }
  bench.scheduler->Stop();
  EXPECT_GT(bench.scheduler->Stats().preemptions, 0u);
}

TEST(SchedulerTest, BlocksOfEndedSequencesAreFreed) {
  Bench bench({.kv_blocks = 8});
  for (uint32_t i = 0; i < 6; ++i) {
    Answer answer;
    answer.Start(*bench.scheduler, {.prompt = Prompt(200, i), .max_tokens = 2});
    ASSERT_OK(answer.Wait());
  }
  // The stage learns of the last one's end with the next step.
  EXPECT_EQ(bench.pipeline->Sequences(), 1);
}

TEST(SchedulerTest, CancelEndsARequestAndNoOther) {
  Bench bench({.step_time = absl::Microseconds(200)});
  Answer cancelled;
  Answer other;
  cancelled.Start(*bench.scheduler, {.prompt = Prompt(5, 1), .max_tokens = 2000});
  const GenerateRequest request{.prompt = Prompt(6, 2), .max_tokens = 50};
  other.Start(*bench.scheduler, request);
  ASSERT_TRUE(bench.pipeline->AwaitSteps(5));
  cancelled.Cancel();
  EXPECT_THAT(cancelled.Wait(), StatusIs(absl::StatusCode::kCancelled));
  cancelled.Cancel();  // once more does nothing
  ASSERT_OK(other.Wait());
  EXPECT_EQ(other.tokens(), Reference(request, 50));
}

TEST(SchedulerTest, DeadlinesEndRequests) {
  Bench bench({.step_time = absl::Milliseconds(1)});
  Answer late;
  late.Start(*bench.scheduler, {.prompt = Prompt(5, 1),
                                .max_tokens = 2000,
                                .deadline = absl::Now() + absl::Milliseconds(30)});
  EXPECT_THAT(late.Wait(), StatusIs(absl::StatusCode::kDeadlineExceeded));
  // Also when nothing happens: the step never comes back.
  bench.pipeline->Hold();
  Answer stuck;
  stuck.Start(
      *bench.scheduler,
      {.prompt = Prompt(5, 1), .max_tokens = 5, .deadline = absl::Now() + absl::Milliseconds(30)});
  EXPECT_THAT(stuck.Wait(), StatusIs(absl::StatusCode::kDeadlineExceeded));
  bench.pipeline->Release();
}

TEST(SchedulerTest, ABreakEndsWhatRunsAndTheNextPipelineTakesOver) {
  FakePipelineOptions options{.stage_count = 2, .kv_blocks = 4};
  Bench bench(options);
  bench.pipeline->Hold();
  Answer running;
  running.Start(*bench.scheduler, {.prompt = Prompt(90, 1), .max_tokens = 30});
  ASSERT_TRUE(bench.pipeline->AwaitSteps(1));
  Answer waiting;
  const GenerateRequest request{.prompt = Prompt(70, 2), .max_tokens = 20};
  waiting.Start(*bench.scheduler, request);

  options.epoch = 2;
  auto next = std::make_shared<FakePipeline>(options);
  bench.source.Set(next);
  bench.pipeline->Break(absl::UnavailableError("worker 'attic' is gone"));
  EXPECT_THAT(running.Wait(), StatusIs(absl::StatusCode::kUnavailable, HasSubstr("attic")));
  ASSERT_OK(waiting.Wait());
  EXPECT_EQ(waiting.tokens(), Reference(request, 20));
  EXPECT_GT(next->Steps().size(), 0u);
  EXPECT_OK(next->Violation());
}

TEST(SchedulerTest, APlanThatIsGivenUpIsReplayedOnTheNextOne) {
  FakePipelineOptions options{.stage_count = 2, .kv_blocks = 8, .step_time = absl::Milliseconds(2)};
  Bench bench(options);
  const GenerateRequest first{
      .prompt = Prompt(90, 1), .max_tokens = 40, .sampling = {.temperature = 1, .seed = 5}};
  const GenerateRequest second{.prompt = Prompt(40, 2), .max_tokens = 20};
  Answer running;
  running.Start(*bench.scheduler, first);
  ASSERT_TRUE(bench.pipeline->AwaitSteps(12));  // some tokens are there
  bench.pipeline->Hold();
  Answer waiting;
  waiting.Start(*bench.scheduler, second);
  Answer cancelled;
  cancelled.Start(*bench.scheduler, second);
  bench.source.Set(nullptr);
  bench.pipeline->Break(absl::AbortedError("worker 'attic' offers less: planning anew"));
  // They wait, as long as there is no other plan, and can be ended meanwhile.
  cancelled.Cancel();
  EXPECT_THAT(cancelled.Wait(), StatusIs(absl::StatusCode::kCancelled));
  options.epoch = 2;
  auto next = std::make_shared<FakePipeline>(options);
  bench.source.Set(next);
  ASSERT_OK(running.Wait());
  ASSERT_OK(waiting.Wait());
  EXPECT_EQ(running.tokens(), Reference(first, 40));
  EXPECT_EQ(waiting.tokens(), Reference(second, 20));
  EXPECT_GT(next->Steps().size(), 0u);
  EXPECT_OK(next->Violation());
}

TEST(SchedulerTest, WithoutAPipelineRequestsEndAtOnce) {
  Bench bench;
  bench.source.Set(nullptr);
  bench.pipeline->Break(absl::UnavailableError("worker 'attic' is gone"));
  for (int i = 0; i < 2; ++i) {
    Answer answer;
    answer.Start(*bench.scheduler, {.prompt = Prompt(5, 1), .max_tokens = 3});
    EXPECT_THAT(answer.Wait(),
                StatusIs(absl::StatusCode::kUnavailable, HasSubstr("waiting for workers")));
  }
  auto next = std::make_shared<FakePipeline>(FakePipelineOptions{.epoch = 9});
  bench.source.Set(next);
  Answer answer;
  answer.Start(*bench.scheduler, {.prompt = Prompt(5, 1), .max_tokens = 3});
  ASSERT_OK(answer.Wait());
  EXPECT_EQ(next->Steps().size(), 3u);
}

TEST(SchedulerTest, AnIdleSchedulerMovesToANewerPlan) {
  Bench bench;
  Answer first;
  first.Start(*bench.scheduler, {.prompt = Prompt(5, 1), .max_tokens = 3});
  ASSERT_OK(first.Wait());
  auto next = std::make_shared<FakePipeline>(FakePipelineOptions{.epoch = 2});
  bench.source.Set(next);
  Answer second;
  second.Start(*bench.scheduler, {.prompt = Prompt(5, 1), .max_tokens = 3});
  ASSERT_OK(second.Wait());
  EXPECT_EQ(second.tokens(), first.tokens());
  EXPECT_EQ(next->Steps().size(), 3u);
}

TEST(SchedulerTest, TooManyRequestsAreRefused) {
  Bench bench({}, {.max_requests = 2});
  bench.pipeline->Hold();
  std::vector<Answer> answers(3);
  for (Answer& answer : answers) {
    answer.Start(*bench.scheduler, {.prompt = Prompt(5, 1), .max_tokens = 3});
  }
  EXPECT_THAT(answers[2].Wait(), StatusIs(absl::StatusCode::kResourceExhausted));
  bench.pipeline->Release();
  EXPECT_OK(answers[0].Wait());
  EXPECT_OK(answers[1].Wait());
}

TEST(SchedulerTest, StopEndsEverything) {
  Bench bench;
  bench.pipeline->Hold();
  Answer running;
  running.Start(*bench.scheduler, {.prompt = Prompt(5, 1), .max_tokens = 3});
  ASSERT_TRUE(bench.pipeline->AwaitSteps(1));
  bench.scheduler->Stop();
  EXPECT_THAT(running.Wait(), StatusIs(absl::StatusCode::kCancelled));
  Answer later;
  later.Start(*bench.scheduler, {.prompt = Prompt(5, 1), .max_tokens = 3});
  EXPECT_TRUE(later.done());
  EXPECT_THAT(later.Wait(), StatusIs(absl::StatusCode::kCancelled));
  bench.pipeline->Release();  // the step's answer finds nobody
}

// Rows of `request`, checked against the toy model as they come.
absl::Status ScoreAndCompare(Scheduler& scheduler, const ScoreRequest& request) {
  absl::Notification done;
  absl::Status status;
  int64_t next = request.first_row;
  scheduler.Score(
      request,
      {.on_row =
           [&](int64_t position, std::span<const float> logits) {
             const std::span<const TokenId> seen = std::span(request.tokens).first(position + 1);
             const std::vector<float> expected = ToyLogits(seen, kVocab);
             if (position != next++) return absl::InternalError("out of order");
             if (!std::equal(logits.begin(), logits.end(), expected.begin(), expected.end())) {
               return absl::InternalError(absl::StrCat("row ", position));
             }
             return absl::OkStatus();
           },
       .on_done =
           [&](absl::StatusOr<RequestTimings> result) {
             status = result.status();
             done.Notify();
           }});
  done.WaitForNotification();
  if (status.ok() && next != static_cast<int64_t>(request.tokens.size())) {
    return absl::InternalError("rows are missing");
  }
  return status;
}

TEST(SchedulerTest, ScoresEveryRowInAnyChunks) {
  for (const int64_t chunk : {0, 1, 7, 200}) {
    Bench bench({.stage_count = 2, .max_step_outputs = 10}, {.prefill_chunk = 50});
    Answer company;
    company.Start(*bench.scheduler, {.prompt = Prompt(30, 5), .max_tokens = 100});
    EXPECT_OK(ScoreAndCompare(*bench.scheduler, {.tokens = Prompt(150, 6), .chunk_tokens = chunk}));
    EXPECT_OK(ScoreAndCompare(*bench.scheduler,
                              {.tokens = Prompt(150, 7), .first_row = 75, .chunk_tokens = chunk}));
    EXPECT_OK(company.Wait());
  }
}

TEST(SchedulerTest, ScoringErrors) {
  Bench bench({.kv_blocks = 4});
  EXPECT_THAT(ScoreAndCompare(*bench.scheduler, {.tokens = Prompt(129, 1)}),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("129")));
  EXPECT_THAT(ScoreAndCompare(*bench.scheduler, {.tokens = Prompt(9, 1), .first_row = 9}),
              StatusIs(absl::StatusCode::kInvalidArgument));
  EXPECT_OK(ScoreAndCompare(*bench.scheduler, {.tokens = Prompt(128, 1)}));
}

TEST(SchedulerTest, ManyRandomRequests) {
  std::mt19937 random(2024);
  Bench bench({.stage_count = 3, .kv_blocks = 24, .max_step_tokens = 96, .max_step_outputs = 9},
              {.prefill_chunk = 40});
  constexpr size_t kRequests = 150;
  std::vector<GenerateRequest> requests(kRequests);
  std::vector<Answer> answers(kRequests);
  std::vector<bool> cancelled(kRequests);
  for (size_t i = 0; i < kRequests; ++i) {
    requests[i].prompt = Prompt(random() % 200 + 1, random());
    requests[i].max_tokens = random() % 150 + 1;
    requests[i].sampling = {.temperature = static_cast<double>(random() % 3),
                            .top_k = static_cast<int64_t>(random() % 3) * 10,
                            .presence_penalty = random() % 4 == 0 ? 0.5 : 0.0,
                            .seed = random()};
    answers[i].Start(*bench.scheduler, requests[i]);
    if (random() % 5 == 0) {
      const size_t victim = random() % (i + 1);
      answers[victim].Cancel();
      cancelled[victim] = true;
    }
  }
  for (size_t i = 0; i < kRequests; ++i) {
    const absl::StatusOr<GenerateResult> result = answers[i].Wait();
    const std::vector<TokenId> expected = Reference(requests[i], answers[i].tokens().size());
    EXPECT_EQ(answers[i].tokens(), expected) << "request " << i;
    if (result.ok()) {
      EXPECT_EQ(static_cast<int64_t>(expected.size()), requests[i].max_tokens);
    } else {
      EXPECT_TRUE(cancelled[i]) << result.status();
      EXPECT_THAT(result, StatusIs(absl::StatusCode::kCancelled));
    }
  }
}

}  // namespace
}  // namespace renga::serving

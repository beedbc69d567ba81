// Verification of guesses, through the scheduler: the text is what it would be without them, and
// guesses cost nobody anything.
#include "coordinator/serving/speculation.h"

#include <algorithm>

#include "coordinator/serving/kv_blocks.h"
#include "coordinator/serving/testing/scheduler_bench.h"

namespace renga::serving {
namespace {

using renga::testing::StatusIs;

// Rows cost next to nothing, so guesses always pay.
StepCost CheapRows(int64_t rows) {
  const double us = 1000 + 10 * static_cast<double>(rows - 1);
  return {us, us, us};
}
// Every row costs a step: guesses never pay.
StepCost DearRows(int64_t rows) {
  const double us = 1000 * static_cast<double>(rows);
  return {us, us, us};
}
// Long links: frames of guesses can follow each other.
StepCost LongLinks(int64_t rows) {
  const double busiest = 100 + 10 * static_cast<double>(rows);
  return {50000 + busiest, 4 * busiest, busiest};
}

void ExpectSame(const std::vector<SampledToken>& got, const std::vector<SampledToken>& expected) {
  ASSERT_EQ(got.size(), expected.size());
  for (size_t i = 0; i < got.size(); ++i) {
    EXPECT_EQ(got[i].id, expected[i].id) << "token " << i;
    EXPECT_EQ(got[i].logprob, expected[i].logprob) << "token " << i;
    ASSERT_EQ(got[i].alternatives.size(), expected[i].alternatives.size());
    for (size_t k = 0; k < got[i].alternatives.size(); ++k) {
      EXPECT_EQ(got[i].alternatives[k].id, expected[i].alternatives[k].id);
      EXPECT_EQ(got[i].alternatives[k].logprob, expected[i].alternatives[k].logprob);
    }
  }
}

int64_t RowsOfAnswers(const model::Step& step) {
  int64_t rows = 0;
  for (const model::StepSlot& slot : step.slots) rows += slot.output_count;
  return rows;
}

struct Way {
  SpeculationMode mode = SpeculationMode::kAuto;
  StepCost (*cost)(int64_t) = CheapRows;
  const char* name = "";
};

TEST(SpeculationTest, TokensAndLogprobsAreThoseWithoutIt) {
  const ToyModel toy = CopyingModel(/*period=*/13, /*novelty=*/9, /*strength=*/9);
  const std::vector<GenerateRequest> requests = SomeOfEachKind(/*max_tokens=*/150);
  for (const Way& way : {Way{SpeculationMode::kLookup, DearRows, "lookup"},
                         Way{SpeculationMode::kAuto, CheapRows, "cheap rows"},
                         Way{SpeculationMode::kAuto, LongLinks, "long links"}}) {
    for (const int64_t stages : {1, 2, 3, 4}) {
      for (const bool together : {false, true}) {
        SCOPED_TRACE(absl::StrCat(way.name, ", ", stages, " stages, together: ", together));
        Bench bench({.stage_count = stages, .toy = toy, .cost = way.cost},
                    {.speculation = way.mode});
        std::vector<Answer> answers(requests.size());
        for (size_t i = 0; i < requests.size(); ++i) {
          answers[i].Start(*bench.scheduler, requests[i]);
          if (!together) {
            ASSERT_OK(answers[i].Wait());
          }
        }
        for (size_t i = 0; i < requests.size(); ++i) {
          SCOPED_TRACE(absl::StrCat("request ", i));
          ASSERT_OK(answers[i].Wait());
          ExpectSame(answers[i].sampled(),
                     ReferenceTokens(requests[i], requests[i].max_tokens, toy));
        }
        bench.scheduler->Stop();
        EXPECT_GT(bench.scheduler->Stats().accepted_tokens, 50u);
      }
    }
  }
}

TEST(SpeculationTest, ACopyTakesFewSteps) {
  Bench bench({.toy = CopyingModel(10, 1 << 20), .cost = CheapRows},
              {.speculation = SpeculationMode::kAuto});
  Answer answer;
  answer.Start(*bench.scheduler, {.prompt = Prompt(30, 1), .max_tokens = 400});
  ASSERT_OK_AND_ASSIGN(const GenerateResult result, answer.Wait());
  EXPECT_LT(bench.pipeline->Steps().size(), 400u / 6);
  EXPECT_GT(result.speculation.accepted, 330);
  EXPECT_GE(result.speculation.drafted, result.speculation.accepted);
  bench.scheduler->Stop();
  const ServingStats stats = bench.scheduler->Stats();
  EXPECT_EQ(static_cast<int64_t>(stats.drafted_tokens), result.speculation.drafted);
  EXPECT_EQ(static_cast<int64_t>(stats.steps) + stats.saved_steps, 400);
}

TEST(SpeculationTest, WhatCanNotBeGuessedIsLeftAlone) {
  // Rows that are dear but not hopeless, and text in which every short match misleads.
  const auto cost = [](int64_t rows) {
    const double us = 1000 + 250 * static_cast<double>(rows - 1);
    return StepCost{us, us, us};
  };
  Bench bench({.cost = cost}, {.speculation = SpeculationMode::kAuto});
  Answer answer;
  answer.Start(*bench.scheduler, {.prompt = Prompt(500, 1), .max_tokens = 1000});
  ASSERT_OK(answer.Wait());
  double spent_us = 0;
  for (const model::Step& step : bench.pipeline->Steps()) {
    if (step.slots[0].token_count <= 8) spent_us += cost(step.token_count()).round_trip_us;
  }
  EXPECT_LT(spent_us, 1.02 * 1000 * 1000);
}

TEST(SpeculationTest, RowsThatCostAStepEachAreNotSent) {
  Bench bench({.toy = CopyingModel(10, 1 << 20), .cost = DearRows},
              {.speculation = SpeculationMode::kAuto});
  Answer answer;
  answer.Start(*bench.scheduler, {.prompt = Prompt(30, 1), .max_tokens = 1500});
  ASSERT_OK_AND_ASSIGN(const GenerateResult result, answer.Wait());
  // The first ones, by which that is found out, and a try now and then.
  EXPECT_GT(result.speculation.drafted, 0);
  EXPECT_LT(result.speculation.drafted, 50);
}

TEST(SpeculationTest, FramesFollowEachOtherOverLongLinks) {
  const ToyModel toy = CopyingModel(10, 1 << 20);
  Bench bench({.stage_count = 3, .toy = toy, .cost = LongLinks},
              {.speculation = SpeculationMode::kAuto});
  const GenerateRequest request{.prompt = Prompt(30, 1), .max_tokens = 1500};
  Answer answer;
  answer.Start(*bench.scheduler, request);
  ASSERT_TRUE(bench.pipeline->AwaitSteps(30));
  bench.pipeline->Hold();
  // Nothing is answered, and still frames come.
  EXPECT_TRUE(bench.pipeline->AwaitSteps(bench.pipeline->Steps().size() + 5));
  bench.pipeline->Release();
  ASSERT_OK(answer.Wait());
  // More than ever without guesses: one per stage, and one.
  EXPECT_GE(bench.pipeline->MaxInFlight(), 5);
  EXPECT_EQ(answer.tokens(), Reference(request, 1500, toy));
}

TEST(SpeculationTest, AMissTakesBackTheFramesBehindIt) {
  const ToyModel toy = CopyingModel(10, 60);
  // Longer than from one frame to the next, so that some wait when a miss is known.
  Bench bench({.stage_count = 3, .step_time = absl::Milliseconds(6), .toy = toy, .cost = LongLinks},
              {.speculation = SpeculationMode::kAuto});
  const GenerateRequest request{.prompt = Prompt(30, 1), .max_tokens = 600};
  Answer answer;
  answer.Start(*bench.scheduler, request);
  ASSERT_OK(answer.Wait());
  EXPECT_EQ(answer.tokens(), Reference(request, 600, toy));
  int64_t truncations = 0;
  for (const model::Step& step : bench.pipeline->Steps()) {
    for (const model::KvCommand& command : step.commands) {
      truncations += command.kind == model::KvCommand::Kind::kTruncate ? 1 : 0;
    }
  }
  EXPECT_GE(truncations, 5);
  // Those that were not computed when the miss was known are not computed any more.
  EXPECT_GE(bench.pipeline->Skipped(), 5);
  bench.scheduler->Stop();
  EXPECT_EQ(static_cast<int64_t>(bench.scheduler->Stats().skipped_steps),
            bench.pipeline->Skipped());
}

TEST(SpeculationTest, AnswersEndWhereTheyWouldWithoutGuesses) {
  const ToyModel toy = CopyingModel(7, 1 << 20);
  const GenerateRequest request{.prompt = Prompt(30, 4), .max_tokens = 100};
  const std::vector<TokenId> expected = Reference(request, 100, toy);
  for (const int64_t length : {1, 2, 3, 50, 51, 52, 53, 54, 55, 56, 57, 58}) {
    Bench bench({.toy = toy}, {.speculation = SpeculationMode::kLookup});
    Answer by_length;
    GenerateRequest shorter = request;
    shorter.max_tokens = length;
    by_length.Start(*bench.scheduler, shorter);
    Answer by_sink;
    by_sink.StopAfter(length);
    by_sink.Start(*bench.scheduler, request);
    const std::vector<TokenId> wanted(expected.begin(), expected.begin() + length);
    ASSERT_OK(by_length.Wait());
    EXPECT_EQ(by_length.tokens(), wanted);
    ASSERT_OK(by_sink.Wait());
    EXPECT_EQ(by_sink.tokens(), wanted);
  }
}

TEST(SpeculationTest, AnEndTokenInTheMiddleOfADraftEnds) {
  // A copy of the prompt, whose 40th token is the only one of its kind.
  std::vector<TokenId> prompt = Prompt(80, 4);
  std::replace(prompt.begin(), prompt.end(), 63, 0);
  prompt[40] = 63;
  Bench bench({.toy = CopyingModel(80, 1 << 20)},
              {.is_end_token = [](TokenId token) { return token == 63; },
               .speculation = SpeculationMode::kLookup});
  Answer answer;
  answer.Start(*bench.scheduler, {.prompt = prompt, .max_tokens = 200});
  ASSERT_OK_AND_ASSIGN(const GenerateResult result, answer.Wait());
  EXPECT_EQ(result.reason, FinishReason::kStop);
  EXPECT_EQ(answer.tokens(), std::vector<TokenId>(prompt.begin(), prompt.begin() + 40));
  EXPECT_EQ(result.usage.completion_tokens, 41);
  EXPECT_LT(bench.pipeline->Steps().size(), 20u);
}

TEST(SpeculationTest, TheContextIsUsedToItsLastPosition) {
  const ToyModel toy = CopyingModel(5, 11);
  for (const Way& way : {Way{SpeculationMode::kLookup, CheapRows, "lookup"},
                         Way{SpeculationMode::kAuto, LongLinks, "long links"}}) {
    Bench bench({.stage_count = 2, .kv_blocks = 4, .toy = toy, .cost = way.cost},
                {.speculation = way.mode});
    Answer answer;
    const GenerateRequest request{.prompt = Prompt(40, 8)};
    answer.Start(*bench.scheduler, request);
    ASSERT_OK(answer.Wait());
    EXPECT_EQ(answer.tokens(), Reference(request, 88, toy)) << way.name;
  }
}

TEST(SpeculationTest, ShortOfBlocksTextsStayTheSame) {
  const ToyModel toy = CopyingModel(5, 11);
  Bench bench({.stage_count = 2, .kv_blocks = 5, .toy = toy},
              {.speculation = SpeculationMode::kLookup});
  std::vector<GenerateRequest> requests;
  std::vector<Answer> answers(10);
  for (uint32_t i = 0; i < 10; ++i) {
    requests.push_back({.prompt = Prompt(20 + i, i), .max_tokens = 100});
    answers[i].Start(*bench.scheduler, requests[i]);
  }
  for (size_t i = 0; i < 10; ++i) {
    ASSERT_OK(answers[i].Wait()) << i;
    EXPECT_EQ(answers[i].tokens(), Reference(requests[i], 100, toy)) << i;
  }
  bench.scheduler->Stop();
  EXPECT_GT(bench.scheduler->Stats().preemptions, 0u);
}

TEST(SpeculationTest, AStepsRowsSufficeOrGuessesStayOut) {
  const ToyModel toy = CopyingModel(5, 11);
  Bench bench({.max_step_outputs = 6, .toy = toy}, {.speculation = SpeculationMode::kLookup});
  std::vector<GenerateRequest> requests;
  std::vector<Answer> answers(5);
  for (uint32_t i = 0; i < 5; ++i) {
    requests.push_back({.prompt = Prompt(20, i), .max_tokens = 60});
    answers[i].Start(*bench.scheduler, requests[i]);
  }
  for (size_t i = 0; i < 5; ++i) {
    ASSERT_OK(answers[i].Wait());
    EXPECT_EQ(answers[i].tokens(), Reference(requests[i], 60, toy));
  }
  int64_t most = 0;
  for (const model::Step& step : bench.pipeline->Steps()) {
    most = std::max(most, RowsOfAnswers(step));
  }
  EXPECT_EQ(most, 6);
}

TEST(SpeculationTest, GuessesYieldToPrompts) {
  Bench bench({.kv_blocks = 400, .toy = CopyingModel(7, 1 << 20)},
              {.prefill_chunk = 32, .speculation = SpeculationMode::kLookup});
  bench.pipeline->Hold();
  Answer talking;
  talking.Start(*bench.scheduler, {.prompt = Prompt(20, 1), .max_tokens = 2000});
  Answer prompt;
  prompt.Start(*bench.scheduler, {.prompt = Prompt(1500, 2), .max_tokens = 1});
  bench.pipeline->Release();
  ASSERT_OK(prompt.Wait());
  talking.Cancel();
  EXPECT_THAT(talking.Wait(), StatusIs(absl::StatusCode::kCancelled));
  int64_t with_prompt = 0;
  for (const model::Step& step : bench.pipeline->Steps()) {
    const auto is_prompt = [](const model::StepSlot& slot) { return slot.output_count == 0; };
    if (std::none_of(step.slots.begin(), step.slots.end(), is_prompt)) continue;
    with_prompt += step.slots.size() > 1 ? 1 : 0;
    for (const model::StepSlot& slot : step.slots) EXPECT_LE(slot.output_count, 1);
  }
  EXPECT_GT(with_prompt, 10);
}

TEST(SpeculationTest, ACancelledStreamLeavesNothingBehind) {
  const ToyModel toy = CopyingModel(10, 1 << 20);
  Bench bench({.stage_count = 3, .toy = toy, .cost = LongLinks},
              {.speculation = SpeculationMode::kAuto});
  Answer cancelled;
  cancelled.Start(*bench.scheduler, {.prompt = Prompt(30, 1), .max_tokens = 1500});
  ASSERT_TRUE(bench.pipeline->AwaitSteps(30));
  bench.pipeline->Hold();
  ASSERT_TRUE(bench.pipeline->AwaitSteps(bench.pipeline->Steps().size() + 3));
  cancelled.Cancel();
  EXPECT_THAT(cancelled.Wait(), StatusIs(absl::StatusCode::kCancelled));
  const size_t sent = bench.pipeline->Steps().size();
  Answer next;
  const GenerateRequest request{.prompt = Prompt(40, 2), .max_tokens = 20};
  next.Start(*bench.scheduler, request);
  // The new request's step comes after the cancelled one's are withdrawn.
  ASSERT_TRUE(bench.pipeline->AwaitSteps(sent + 1));
  bench.pipeline->Release();
  ASSERT_OK(next.Wait());
  EXPECT_EQ(next.tokens(), Reference(request, 20, toy));
  EXPECT_EQ(bench.pipeline->Sequences(), 1);
  EXPECT_GE(bench.pipeline->Skipped(), 3);
}

TEST(SpeculationTest, ABreakInAStreamEndsItAndTheNextPipelineTakesOver) {
  const ToyModel toy = CopyingModel(10, 1 << 20);
  FakePipelineOptions options{.stage_count = 3, .toy = toy, .cost = LongLinks};
  Bench bench(options, {.speculation = SpeculationMode::kAuto});
  Answer broken;
  broken.Start(*bench.scheduler, {.prompt = Prompt(30, 1), .max_tokens = 1500});
  ASSERT_TRUE(bench.pipeline->AwaitSteps(30));
  bench.pipeline->Hold();
  ASSERT_TRUE(bench.pipeline->AwaitSteps(bench.pipeline->Steps().size() + 3));
  options.epoch = 2;
  auto next = std::make_shared<FakePipeline>(options);
  bench.source.Set(next);
  bench.pipeline->Break(absl::UnavailableError("worker 'attic' is gone"));
  EXPECT_THAT(broken.Wait(), StatusIs(absl::StatusCode::kUnavailable));
  Answer answer;
  const GenerateRequest request{.prompt = Prompt(40, 2), .max_tokens = 200};
  answer.Start(*bench.scheduler, request);
  ASSERT_OK(answer.Wait());
  EXPECT_EQ(answer.tokens(), Reference(request, 200, toy));
  EXPECT_OK(next->Violation());
}

TEST(SpeculationTest, ManyRandomRequests) {
  const ToyModel toy = CopyingModel(9, 7, /*strength=*/9);
  for (const Way& way : {Way{SpeculationMode::kLookup, CheapRows, "lookup"},
                         Way{SpeculationMode::kAuto, LongLinks, "long links"}}) {
    SCOPED_TRACE(way.name);
    std::mt19937 random(77);
    Bench bench({.stage_count = 3,
                 .kv_blocks = 24,
                 .max_step_tokens = 96,
                 .max_step_outputs = 13,
                 .toy = toy,
                 .cost = way.cost},
                {.prefill_chunk = 40, .speculation = way.mode});
    constexpr size_t kRequests = 80;
    std::vector<GenerateRequest> requests(kRequests);
    std::vector<Answer> answers(kRequests);
    for (size_t i = 0; i < kRequests; ++i) {
      requests[i].prompt = Prompt(random() % 200 + 1, random());
      requests[i].max_tokens = random() % 150 + 1;
      requests[i].sampling = {.temperature = static_cast<double>(random() % 3),
                              .top_k = static_cast<int64_t>(random() % 3) * 10,
                              .seed = random()};
      answers[i].Start(*bench.scheduler, requests[i]);
      if (random() % 5 == 0) answers[random() % (i + 1)].Cancel();
      // Now and then one has the stages for itself.
      if (random() % 4 == 0) (void)answers[i].Wait();
    }
    for (size_t i = 0; i < kRequests; ++i) {
      const absl::StatusOr<GenerateResult> result = answers[i].Wait();
      EXPECT_EQ(answers[i].tokens(), Reference(requests[i], answers[i].tokens().size(), toy)) << i;
      if (result.ok()) {
        EXPECT_EQ(static_cast<int64_t>(answers[i].tokens().size()), requests[i].max_tokens);
      } else {
        EXPECT_THAT(result, StatusIs(absl::StatusCode::kCancelled));
      }
    }
  }
}

}  // namespace
}  // namespace renga::serving

// Answers that begin each next token with what the near rows of the head say: the text is that of
// the whole head, and steps do not wait for the far rows.
#include <cmath>

#include "coordinator/serving/testing/scheduler_bench.h"

namespace renga::serving {
namespace {

FakePipelineOptions NearRows(int64_t near_rows, int64_t stages = 1) {
  return {.stage_count = stages, .near_rows = near_rows, .far_time = absl::Milliseconds(2)};
}

TEST(OptimisticTest, TokensAndLogprobsAreThoseOfAllRows) {
  const std::vector<GenerateRequest> requests = SomeOfEachKind(/*max_tokens=*/60);
  // From never right to nearly always.
  for (const int64_t near : {1, 32, 60}) {
    for (const int64_t stages : {1, 3}) {
      for (const bool together : {false, true}) {
        SCOPED_TRACE(absl::StrCat(near, " near rows, ", stages, " stages, together: ", together));
        Bench bench(NearRows(near, stages), {.optimistic = true});
        std::vector<Answer> answers(requests.size());
        for (size_t i = 0; i < requests.size(); ++i) {
          answers[i].Start(*bench.scheduler, requests[i]);
          if (!together) {
            ASSERT_OK(answers[i].Wait());
          }
        }
        for (size_t i = 0; i < requests.size(); ++i) {
          ASSERT_OK(answers[i].Wait());
          const std::vector<SampledToken> expected =
              ReferenceTokens(requests[i], requests[i].max_tokens);
          ASSERT_EQ(answers[i].sampled().size(), expected.size()) << "request " << i;
          for (size_t t = 0; t < expected.size(); ++t) {
            ASSERT_EQ(answers[i].sampled()[t].id, expected[t].id) << i << ", token " << t;
            EXPECT_EQ(answers[i].sampled()[t].logprob, expected[t].logprob);
          }
        }
      }
    }
  }
}

TEST(OptimisticTest, StepsGoOnWhileFarRowsAreOnTheirWay) {
  // All rows but those of ids that are never the best are near.
  const ToyModel toy = [](std::span<const TokenId> tokens, int64_t vocab_size) {
    std::vector<float> logits = ToyLogits(tokens, vocab_size);
    for (int64_t id = 32; id < vocab_size; ++id) logits[static_cast<size_t>(id)] = -100;
    return logits;
  };
  FakePipelineOptions options = NearRows(32);
  options.toy = toy;
  options.far_time = absl::Milliseconds(20);
  Bench bench(options, {.optimistic = true});
  Answer answer;
  answer.Start(*bench.scheduler, {.prompt = Prompt(20, 1), .max_tokens = 80});
  ASSERT_OK_AND_ASSIGN(const GenerateResult result, answer.Wait());
  EXPECT_EQ(result.speculation.refuted, 0);
  EXPECT_EQ(result.speculation.accepted, result.speculation.drafted);
  EXPECT_GT(result.speculation.accepted, 60);
  EXPECT_GT(bench.pipeline->MaxInFlight(), 4);
  // No token is computed that no one asked for.
  EXPECT_EQ(bench.pipeline->Steps().size(), 80u);
}

TEST(OptimisticTest, RefutationsAreCountedAndTakenBack) {
  Bench bench(NearRows(32), {.optimistic = true});
  Answer answer;
  answer.Start(*bench.scheduler, {.prompt = Prompt(20, 1), .max_tokens = 200});
  ASSERT_OK_AND_ASSIGN(const GenerateResult result, answer.Wait());
  // Half of the rows are far.
  EXPECT_GT(result.speculation.refuted, 50);
  EXPECT_LT(result.speculation.refuted, 150);
  EXPECT_LE(result.speculation.refuted + result.speculation.accepted, 200);
  EXPECT_GE(result.speculation.drafted, result.speculation.refuted + result.speculation.accepted);
  bench.scheduler->Stop();
  EXPECT_EQ(bench.pipeline->Sequences(), 1) << "its end travels with the next step";
}

TEST(OptimisticTest, AnswersEndWhereTheyDoWithoutIt) {
  const GenerateRequest request = {.prompt = Prompt(20, 1), .max_tokens = 100};
  const std::vector<TokenId> expected = Reference(request, 100);
  const TokenId end = expected[40];
  Bench bench(NearRows(60),
              {.is_end_token = [end](TokenId id) { return id == end; }, .optimistic = true});
  Answer answer;
  answer.Start(*bench.scheduler, request);
  ASSERT_OK_AND_ASSIGN(const GenerateResult result, answer.Wait());
  EXPECT_EQ(result.reason, FinishReason::kStop);
  const auto first = std::find(expected.begin(), expected.end(), end);
  EXPECT_EQ(answer.tokens(), std::vector<TokenId>(expected.begin(), first));
}

TEST(OptimisticTest, LittleRoomForKeysAndValuesIsEnough) {
  const std::vector<GenerateRequest> requests = SomeOfEachKind(/*max_tokens=*/60);
  FakePipelineOptions options = NearRows(48);
  options.kv_blocks = 14;  // what the longest one needs, and a few
  Bench bench(options, {.optimistic = true});
  std::vector<Answer> answers(requests.size());
  for (size_t i = 0; i < requests.size(); ++i) answers[i].Start(*bench.scheduler, requests[i]);
  for (size_t i = 0; i < requests.size(); ++i) {
    ASSERT_OK(answers[i].Wait());
    EXPECT_EQ(answers[i].tokens(), Reference(requests[i], requests[i].max_tokens));
  }
}

}  // namespace
}  // namespace renga::serving

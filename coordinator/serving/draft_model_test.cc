#include "coordinator/serving/draft_model.h"

#include <algorithm>

#include "coordinator/serving/combined_drafter.h"
#include "coordinator/serving/prompt_lookup.h"
#include "coordinator/serving/testing/scheduler_bench.h"

namespace renga::serving {
namespace {

// Steps so dear, and rows so cheap, that computing guesses pays whatever the machine is busy with.
StepCost LongSteps(int64_t rows) {
  const double us = 1e7 + static_cast<double>(rows);
  return {us, us, us};
}
// Logits of a model that is sure of itself.
std::vector<float> SureToy(std::span<const TokenId> tokens, int64_t vocab_size) {
  std::vector<float> logits = ToyLogits(tokens, vocab_size);
  for (float& logit : logits) logit *= 100;
  return logits;
}

// The same, but every fourth time it says something else.
std::vector<float> NearlySureToy(std::span<const TokenId> tokens, int64_t vocab_size) {
  std::vector<float> logits = SureToy(tokens, vocab_size);
  if (tokens.size() % 4 == 0) std::ranges::reverse(logits);
  return logits;
}

std::vector<GenerateRequest> DraftRequests(int64_t max_tokens) {
  std::vector<GenerateRequest> requests(4);
  for (uint32_t i = 0; i < 4; ++i) {
    requests[i].prompt = Prompt(10 + 41 * i, i);
    requests[i].max_tokens = max_tokens + i;
  }
  requests[1].sampling = {.temperature = 1.5, .top_k = 20, .seed = 3};
  return requests;
}

// A large model with a small one beside it.
class DraftBench {
 public:
  explicit DraftBench(FakePipelineOptions large, FakePipelineOptions small)
      : draft(std::make_shared<FakePipeline>(small)), source(draft), bench(large, Scheduling()) {}
  ~DraftBench() {
    bench.scheduler->Stop();
    EXPECT_OK(draft->Violation());
  }

  // Runs the requests side by side; what each should say is `model`'s answer.
  void ExpectAnswers(const std::vector<GenerateRequest>& requests, const ToyModel& model) {
    std::vector<Answer> answers(requests.size());
    for (size_t i = 0; i < requests.size(); ++i) answers[i].Start(*bench.scheduler, requests[i]);
    for (size_t i = 0; i < requests.size(); ++i) {
      ASSERT_OK(answers[i].Wait());
      EXPECT_EQ(answers[i].tokens(), Reference(requests[i], requests[i].max_tokens, model)) << i;
    }
  }
  ServingStats Stats() const { return bench.scheduler->Stats(); }

  std::shared_ptr<FakePipeline> draft;
  FakePipelineSource source;
  Bench bench;

 private:
  SchedulerOptions Scheduling() {
    SchedulerOptions options;
    options.speculation = SpeculationMode::kAuto;
    options.draft = &source;
    return options;
  }
};

TEST(DraftModelTest, AModelThatAgreesSavesMostSteps) {
  // The large model takes its time, so that the small one can keep up.
  DraftBench bench({.step_time = absl::Milliseconds(5), .toy = SureToy, .cost = LongSteps},
                   {.toy = SureToy});
  GenerateRequest request;
  request.prompt = Prompt(20, 7);
  request.max_tokens = 200;
  bench.ExpectAnswers({request}, SureToy);
  EXPECT_GT(bench.Stats().saved_steps, 100);
  EXPECT_LT(bench.Stats().steps, 80u);
}

TEST(DraftModelTest, TheTextIsTheLargeModels) {
  // The large model takes its time, so that the small one can catch up.
  for (const int64_t stages : {1, 3}) {
    DraftBench bench({.stage_count = stages,
                      .step_time = absl::Milliseconds(2),
                      .toy = SureToy,
                      .cost = LongSteps},
                     {.toy = NearlySureToy});
    bench.ExpectAnswers(DraftRequests(60), SureToy);
    EXPECT_GT(bench.Stats().drafted_tokens, 0u);
  }
}

TEST(DraftModelTest, LongPromptsAreReadInChunksBesideTheLargeModels) {
  // The large model takes its time, so that the small one can catch up.
  DraftBench bench(
      {.kv_blocks = 128, .step_time = absl::Milliseconds(1), .toy = SureToy, .cost = LongSteps},
      {.kv_blocks = 128, .max_step_tokens = 32, .toy = SureToy});
  GenerateRequest request;
  request.prompt = Prompt(1000, 3);
  request.max_tokens = 300;
  bench.ExpectAnswers({request}, SureToy);
  EXPECT_GT(bench.Stats().accepted_tokens, 0u);
}

TEST(DraftModelTest, WithoutRoomForASequenceItGoesOnWithoutGuesses) {
  DraftBench bench({.toy = SureToy, .cost = LongSteps}, {.kv_blocks = 3, .toy = SureToy});
  bench.ExpectAnswers(DraftRequests(60), SureToy);
}

TEST(DraftModelTest, AModelThatFailsIsLeftAlone) {
  DraftBench bench({.toy = SureToy, .cost = LongSteps}, {.toy = SureToy});
  bench.draft->Break(absl::UnavailableError("gone"));
  bench.ExpectAnswers(DraftRequests(40), SureToy);
  EXPECT_EQ(bench.Stats().drafted_tokens, 0u);
}

TEST(DraftModelTest, ItsStateFollowsTheText) {
  FakePipelineSource source(std::make_shared<FakePipeline>(FakePipelineOptions{.toy = SureToy}));
  DraftModel model(&source);
  ModelDrafter drafter(&model);
  std::vector<TokenId> text = Prompt(6, 1);
  const auto greedy = [](const std::vector<TokenId>& tokens, int64_t count) {
    return Reference({.prompt = tokens}, count, SureToy);
  };
  const auto propose = [&](std::span<const Guess> pending) {
    std::vector<TokenId> tokens;
    for (const Guess& guess : drafter.Propose(text, pending, {.computed = 3})) {
      EXPECT_TRUE(guess.computed());
      tokens.push_back(guess.token);
    }
    return tokens;
  };
  EXPECT_EQ(propose({}), greedy(text, 3));
  text.push_back(propose({})[0]);  // right
  EXPECT_EQ(propose({}), greedy(text, 3));
  text.push_back((propose({})[0] + 1) % kToyVocab);  // wrong
  EXPECT_EQ(propose({}), greedy(text, 3));
  std::vector<TokenId> longer = text;
  longer.push_back(5);
  EXPECT_EQ(propose(std::vector<Guess>{{5, kFoundClasses}}), greedy(longer, 3));
  EXPECT_GT(model.step_us(), 0);
}

TEST(DraftModelTest, EvidenceGrowsWithTheProbability) {
  EXPECT_EQ(ModelDrafter::EvidenceOf(0), kFoundClasses);
  EXPECT_EQ(ModelDrafter::EvidenceOf(1), kEvidenceClasses - 1);
  for (double p = 0; p < 1; p += 0.05) {
    EXPECT_LE(ModelDrafter::EvidenceOf(p), ModelDrafter::EvidenceOf(p + 0.05));
  }
}

// Guesses its own name.
class Named : public Drafter {
 public:
  explicit Named(int evidence) : evidence_(evidence) {}
  std::vector<Guess> Propose(std::span<const TokenId>, std::span<const Guess>,
                             const GuessLimits& limits) override {
    const int64_t count = evidence_ < kFoundClasses ? limits.found : limits.computed;
    return std::vector<Guess>(static_cast<size_t>(count), {evidence_, evidence_});
  }
  const EvidencePriors& priors() const override { return priors_; }

 private:
  const int evidence_;
  const EvidencePriors priors_{};
};

TEST(CombinedDrafterTest, ACopyIsBelievedBeforeTheModel) {
  const std::vector<TokenId> text = {1, 2, 3};
  const auto first = [&](int found, const GuessLimits& limits) {
    CombinedDrafter drafter(std::make_unique<Named>(found), std::make_unique<Named>(12));
    const std::vector<Guess> guesses = drafter.Propose(text, {}, limits);
    return guesses.empty() ? -1 : guesses.front().token;
  };
  EXPECT_EQ(first(7, {.found = 2, .computed = 2}), 7);
  EXPECT_EQ(first(1, {.found = 2, .computed = 2}), 12);
  EXPECT_EQ(first(1, {.found = 2, .computed = 0}), 1);
  EXPECT_EQ(first(7, {.found = 0, .computed = 2}), 12);
  EXPECT_EQ(first(7, {}), -1);
}

}  // namespace
}  // namespace renga::serving

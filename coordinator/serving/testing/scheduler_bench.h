// For tests: a scheduler over a pipeline of the toy model, requests to it and what comes back.
#ifndef RENGA_COORDINATOR_SERVING_TESTING_SCHEDULER_BENCH_H_
#define RENGA_COORDINATOR_SERVING_TESTING_SCHEDULER_BENCH_H_

#include <cstdint>
#include <memory>
#include <optional>
#include <random>
#include <utility>
#include <vector>

#include "absl/synchronization/notification.h"
#include "base/testing/status_matchers.h"
#include "coordinator/serving/scheduler.h"
#include "coordinator/serving/testing/fake_pipeline.h"
#include "gtest/gtest.h"

namespace renga::serving {

inline constexpr int64_t kToyVocab = 64;

inline std::vector<TokenId> Prompt(int64_t length, uint32_t seed) {
  std::mt19937 random(seed);
  std::vector<TokenId> prompt(length);
  for (TokenId& token : prompt) token = static_cast<TokenId>(random() % kToyVocab);
  return prompt;
}

// What the toy model answers, computed without a scheduler, steps or blocks.
inline std::vector<SampledToken> ReferenceTokens(const GenerateRequest& request, int64_t count,
                                                 const ToyModel& model = ToyLogits) {
  std::vector<TokenId> tokens = request.prompt;
  const int64_t prompt_tokens = static_cast<int64_t>(tokens.size());
  std::vector<SampledToken> answer;
  for (int64_t i = 0; i < count; ++i) {
    const int64_t k = HeadTopK(request.sampling, request.alternatives, kToyVocab);
    absl::StatusOr<SampledToken> sampled =
        SampleToken(ToyRow(model(tokens, kToyVocab), k), {tokens, prompt_tokens}, request.sampling,
                    request.alternatives, kToyVocab);
    if (!sampled.ok()) break;
    tokens.push_back(sampled->id);
    answer.push_back(*std::move(sampled));
  }
  return answer;
}

inline std::vector<TokenId> Reference(const GenerateRequest& request, int64_t count,
                                      const ToyModel& model = ToyLogits) {
  std::vector<TokenId> ids;
  for (const SampledToken& token : ReferenceTokens(request, count, model)) ids.push_back(token.id);
  return ids;
}

// A request and what has come back for it.
class Answer {
 public:
  void Start(Scheduler& scheduler, GenerateRequest request) {
    handle_ = scheduler.Generate(std::move(request),
                                 {.on_token =
                                      [this](const TokenEvent& event) {
                                        tokens_.push_back(event.sampled.id);
                                        sampled_.push_back(event.sampled);
                                        return static_cast<int64_t>(tokens_.size()) == stop_after_
                                                   ? SinkAction::kStop
                                                   : SinkAction::kContinue;
                                      },
                                  .on_done =
                                      [this](absl::StatusOr<GenerateResult> result) {
                                        result_ = std::move(result);
                                        done_.Notify();
                                      }});
  }
  void StopAfter(int64_t tokens) { stop_after_ = tokens; }
  void Cancel() { handle_.Cancel(); }
  bool done() { return done_.HasBeenNotified(); }
  absl::StatusOr<GenerateResult> Wait() {
    if (!done_.WaitForNotificationWithTimeout(absl::Seconds(30))) {
      return absl::InternalError("no answer within 30 s");
    }
    return result_;
  }
  // After Wait.
  const std::vector<TokenId>& tokens() const { return tokens_; }
  const std::vector<SampledToken>& sampled() const { return sampled_; }

 private:
  int64_t stop_after_ = -1;
  RequestHandle handle_;
  std::vector<TokenId> tokens_;
  std::vector<SampledToken> sampled_;
  absl::StatusOr<GenerateResult> result_ = absl::UnknownError("");
  absl::Notification done_;
};

// Four ways to choose a token, with all that needs more than the best logit.
inline std::vector<GenerateRequest> SomeOfEachKind(int64_t max_tokens) {
  std::vector<GenerateRequest> requests(4);
  for (uint32_t i = 0; i < 4; ++i) {
    requests[i].prompt = Prompt(20 + 31 * i, i);
    requests[i].max_tokens = max_tokens + i;
    requests[i].alternatives = static_cast<int64_t>(2 * i);
  }
  requests[1].sampling = {.temperature = 1.5, .top_k = 20, .seed = 3};
  requests[2].sampling = {.temperature = 0.8, .top_p = 0.9, .min_p = 0.01, .seed = 4};
  requests[3].sampling = {.temperature = 1,
                          .repetition_penalty = 1.1,
                          .presence_penalty = 0.2,
                          .frequency_penalty = 0.1,
                          .logit_bias = {{3, 1.5}},
                          .seed = 5};
  return requests;
}

// A pipeline, its source and a scheduler over it.
class Bench {
 public:
  explicit Bench(FakePipelineOptions options = {}, SchedulerOptions scheduling = {})
      : pipeline(std::make_shared<FakePipeline>(options)), source(pipeline) {
    scheduling.replicas = {&source};
    if (!scheduling.is_end_token) scheduling.is_end_token = [](TokenId) { return false; };
    scheduler.emplace(std::move(scheduling));
  }
  ~Bench() {
    scheduler.reset();
    EXPECT_OK(pipeline->Violation());
  }

  std::shared_ptr<FakePipeline> pipeline;
  FakePipelineSource source;
  std::optional<Scheduler> scheduler;
};

}  // namespace renga::serving

#endif  // RENGA_COORDINATOR_SERVING_TESTING_SCHEDULER_BENCH_H_

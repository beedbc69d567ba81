#include "coordinator/cluster/pipeline_impl.h"

#include <atomic>
#include <cmath>
#include <future>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "base/testing/status_matchers.h"
#include "coordinator/cluster/head_merge.h"
#include "coordinator/cluster/testing/fake_workers.h"
#include "gtest/gtest.h"
#include "proto/worker.grpc.pb.h"
#include "transport/dialer.h"

namespace renga::cluster {
namespace {

using ::renga::testing::StatusIs;
using ::testing::AllOf;
using ::testing::HasSubstr;

constexpr int64_t kWidth = 4;
constexpr int64_t kVocabulary = 100;
constexpr uint64_t kEpoch = 77;

// A pipeline of three workers: two stages, of which the second has vocabulary rows [0, 30), and
// one worker with [30, 100) only.
class PipelineImplTest : public ::testing::Test {
 protected:
  void SetUp() override {
    for (const char* id : {"w-a", "w-b", "w-c"}) {
      workers_.push_back(std::make_unique<FakeWorker>(&fakes_, id));
      workers_.back()->StartInProcess();
    }
    head_rows_ = {{0, 0}, {0, 30}, {30, kVocabulary}};
    for (uint32_t i = 0; i < workers_.size(); ++i) LoadByHand(i);
  }
  void TearDown() override { pipeline_.reset(); }

  void LoadByHand(uint32_t index) {
    proto::LoadRequest request;
    request.set_epoch(kEpoch);
    request.set_worker_index(index);
    request.mutable_manifest()->mutable_config()->set_d_model(kWidth);
    request.mutable_head_rows()->set_begin(head_rows_[index].begin);
    request.mutable_head_rows()->set_end(head_rows_[index].end);
    grpc::ClientContext context;
    const auto stub = proto::Worker::NewStub(Channel(index));
    const auto reader = stub->Load(&context, request);
    proto::LoadProgress progress;
    while (reader->Read(&progress)) {
    }
    ASSERT_TRUE(reader->Finish().ok());
  }

  std::shared_ptr<grpc::Channel> Channel(uint32_t index) {
    return workers_[index]->server()->InProcessChannel({});
  }

  void Start(absl::Duration step_deadline = absl::Seconds(30)) {
    PipelineOptions options;
    options.epoch = kEpoch;
    options.dialer = dialer_.get();
    options.model.config.d_model = kWidth;
    options.model.config.vocab_size = kVocabulary;
    options.limits.max_step_tokens = 16;
    options.limits.max_step_outputs = 8;
    options.stages = {{0}, {1}};
    options.embed = RowsOf;
    options.step_deadline = step_deadline;
    if (clock_) options.clock = clock_;
    options.on_broken = [this] { broken_.set_value(); };
    for (uint32_t i = 0; i < workers_.size(); ++i) {
      options.workers.push_back({.id = workers_[i]->id(),
                                 .name = absl::StrCat("name-of-", workers_[i]->id()),
                                 .address = workers_[i]->data_address(),
                                 .head_rows = head_rows_[i]});
    }
    pipeline_ = std::make_shared<PipelineImpl>(std::move(options));
  }

  // One sequence's prefill chunk without output and two decodes.
  static model::Step SomeStep(int64_t top_k) {
    model::Step step;
    step.slots.push_back({.sequence = 1, .token_count = 3});
    step.slots.push_back({.sequence = 2, .token_count = 1, .output_count = 1, .top_k = top_k});
    step.slots.push_back({.sequence = 3, .token_count = 2, .output_count = 2, .top_k = 0});
    return step;
  }
  static std::vector<model::TokenId> SomeTokens(int64_t count, int seed) {
    std::vector<model::TokenId> tokens(static_cast<size_t>(count));
    for (size_t i = 0; i < tokens.size(); ++i) tokens[i] = seed + static_cast<int>(3 * i);
    return tokens;
  }
  // What the pipeline makes of them.
  static std::vector<float> RowsOf(std::span<const model::TokenId> tokens) {
    std::vector<float> rows;
    for (const model::TokenId token : tokens) {
      rows.insert(rows.end(), kWidth, static_cast<float>(token));
    }
    return rows;
  }
  static std::vector<float> SomeRows(int64_t count, int seed) {
    return RowsOf(SomeTokens(count, seed));
  }

  std::future<absl::StatusOr<StepOutcome>> Send(model::Step step,
                                                std::vector<model::TokenId> tokens) {
    auto promise = std::make_shared<std::promise<absl::StatusOr<StepOutcome>>>();
    auto future = promise->get_future();
    pipeline_->Submit(
        std::move(step), std::move(tokens),
        [promise](absl::StatusOr<StepOutcome> outcome) { promise->set_value(std::move(outcome)); },
        /*early=*/nullptr);
    return future;
  }
  absl::StatusOr<StepOutcome> Run(model::Step step, std::vector<model::TokenId> tokens) {
    return Send(std::move(step), std::move(tokens)).get();
  }
  absl::Status RunWith(Misbehaviour misbehaviour) {
    workers_[2]->set_misbehaviour(misbehaviour);
    return Run(SomeStep(5), SomeTokens(6, 1)).status();
  }

  const std::unique_ptr<transport::Dialer> dialer_ = transport::CreateInsecureLoopbackDialer();
  FakeWorkers fakes_;
  std::vector<std::unique_ptr<FakeWorker>> workers_;
  std::vector<model::Range> head_rows_;
  Membership::Clock clock_;  // empty: the real one
  std::atomic<int64_t> now_ms_ = 0;
  std::promise<void> broken_;
  std::shared_ptr<PipelineImpl> pipeline_;
};

TEST_F(PipelineImplTest, AnswersAreThoseOfOneWholeHead) {
  Start();
  for (int round = 0; round < 20; ++round) {
    const int64_t top_k = 1 + round * 7;
    const std::vector<model::TokenId> tokens = SomeTokens(6, round);
    model::Step step = SomeStep(top_k);
    ASSERT_OK_AND_ASSIGN(const StepOutcome outcome, Run(step, tokens));
    const auto expected = FakeAnswer(step, RowsOf(tokens), kWidth, 0, kVocabulary);
    ASSERT_EQ(outcome.rows.size(), 3u);
    for (size_t i = 0; i < 3; ++i) {
      EXPECT_EQ(outcome.rows[i].ids, expected[i].ids);
      EXPECT_EQ(outcome.rows[i].logits, expected[i].logits);
      EXPECT_NEAR(outcome.rows[i].sum_exp, expected[i].sum_exp, 1e-9);
    }
    EXPECT_EQ(outcome.timings.size(), 3u) << "a stage's, told by both heads, and two heads'";
  }
  EXPECT_EQ(pipeline_->times().steps, 20u);
  EXPECT_GT(pipeline_->times().prefill_round_trip_us_per_token, 0);
  EXPECT_OK(pipeline_->status());
}

TEST_F(PipelineImplTest, DecodeTimesAreAveragedAndTheNetworkGetsTheRest) {
  Start();
  model::Step step;
  step.slots.push_back({.sequence = 1, .token_count = 1, .output_count = 1, .top_k = 1});
  ASSERT_OK(Run(step, SomeTokens(1, 0)));
  const PipelineTimes times = pipeline_->times();
  EXPECT_EQ(times.workers[0].decode_layers_us, 40);
  EXPECT_EQ(times.workers[0].decode_queue_us, 3);
  EXPECT_EQ(times.workers[1].decode_head_us, 7);
  EXPECT_EQ(times.decode_network_us, std::max(0.0, times.decode_round_trip_us - 50));
  EXPECT_EQ(times.decode_totals.steps, 1u);
  EXPECT_EQ(times.decode_totals.compute_us + times.decode_totals.queue_us, 50);
  EXPECT_EQ(times.decode_totals.round_trip_us, times.decode_round_trip_us);
}

TEST_F(PipelineImplTest, StepsWithoutOutputsCompleteToo) {
  Start();
  model::Step step;
  step.slots.push_back({.sequence = 1, .token_count = 2});
  ASSERT_OK_AND_ASSIGN(const StepOutcome outcome, Run(step, SomeTokens(2, 0)));
  EXPECT_TRUE(outcome.rows.empty());
}

TEST_F(PipelineImplTest, StepsInFlightCompleteInTheirOrder) {
  Start();
  std::vector<std::future<absl::StatusOr<StepOutcome>>> futures;
  for (int i = 0; i < 16; ++i) futures.push_back(Send(SomeStep(1), SomeTokens(6, i)));
  for (int i = 0; i < 16; ++i) {
    ASSERT_OK_AND_ASSIGN(const StepOutcome outcome, futures[i].get());
    EXPECT_EQ(outcome.rows[1].logits,
              FakeAnswer(SomeStep(1), SomeRows(6, i), kWidth, 0, kVocabulary)[1].logits);
  }
}

TEST_F(PipelineImplTest, CallbacksMaySubmitAndEndThePipeline) {
  Start();
  std::promise<absl::Status> second;
  const auto end = [&](absl::StatusOr<StepOutcome> outcome) {
    pipeline_.reset();
    second.set_value(outcome.status());
  };
  const auto go_on = [&](absl::StatusOr<StepOutcome> first) {
    EXPECT_OK(first);
    pipeline_->Submit(SomeStep(1), SomeTokens(6, 0), end, /*early=*/nullptr);
  };
  pipeline_->Submit(SomeStep(1), SomeTokens(6, 0), go_on, /*early=*/nullptr);
  EXPECT_OK(second.get_future().get());
  broken_.get_future().get();
}

TEST_F(PipelineImplTest, BadStepsAreRefusedWithoutHarm) {
  Start();
  EXPECT_THAT(Run(SomeStep(1), SomeTokens(5, 0)), StatusIs(absl::StatusCode::kInternal));
  model::Step step = SomeStep(1);
  step.slots[0].token_count = 17;
  EXPECT_THAT(Run(step, SomeTokens(20, 0)), StatusIs(absl::StatusCode::kInternal));
  step = SomeStep(1);
  step.slots[1].output_count = 2;
  EXPECT_THAT(Run(step, SomeTokens(6, 0)), StatusIs(absl::StatusCode::kInternal));
  EXPECT_OK(Run(SomeStep(1), SomeTokens(6, 0)));
}

TEST_F(PipelineImplTest, TooManyStepsAreRefused) {
  workers_[2]->set_misbehaviour(Misbehaviour::kSilent);
  Start();
  std::vector<std::future<absl::StatusOr<StepOutcome>>> futures;
  for (int i = 0; i < 17; ++i) futures.push_back(Send(SomeStep(1), SomeTokens(6, 0)));
  EXPECT_THAT(futures.back().get(), StatusIs(absl::StatusCode::kResourceExhausted));
  pipeline_->Break(absl::UnavailableError("enough"));
  EXPECT_THAT(futures.front().get(), StatusIs(absl::StatusCode::kUnavailable, "enough"));
}

TEST_F(PipelineImplTest, AnswersOfAnotherEpochCountForNothing) {
  Start(absl::Milliseconds(300));
  EXPECT_THAT(RunWith(Misbehaviour::kWrongEpoch),
              StatusIs(absl::StatusCode::kUnavailable,
                       AllOf(HasSubstr("not answered within 300ms"), HasSubstr("name-of-w-c"))));
}

// On a clock that is moved by hand: two thirds of the deadline pass at a time.
TEST_F(PipelineImplTest, AStepMayTakeItsTimeWhileWeightsComeForIt) {
  clock_ = [this] { return absl::Milliseconds(now_ms_.load()); };
  workers_[2]->set_misbehaviour(Misbehaviour::kSilent);
  Start(absl::Milliseconds(30));
  auto future = Send(SomeStep(1), SomeTokens(6, 0));
  for (int64_t come = 1; come < 6; ++come) {
    pipeline_->Heard(0, {.step = 1, .weight_bytes = come});
    now_ms_ += 20;
  }
  ASSERT_OK(pipeline_->status());
  now_ms_ += 20;
  EXPECT_THAT(future.get(),
              StatusIs(absl::StatusCode::kUnavailable,
                       AllOf(HasSubstr("within 30ms after the last weights had come by"),
                             HasSubstr("name-of-w-c"))));
}

TEST_F(PipelineImplTest, AFailedStepNamesTheWorkerAndEndsTheEpoch) {
  Start();
  EXPECT_THAT(RunWith(Misbehaviour::kFailsStep),
              StatusIs(absl::StatusCode::kInternal,
                       AllOf(HasSubstr("name-of-w-c"), HasSubstr("the engine is on fire"))));
  broken_.get_future().get();
  EXPECT_THAT(Run(SomeStep(1), SomeTokens(6, 0)),
              StatusIs(absl::StatusCode::kUnavailable, HasSubstr("name-of-w-c")));
}

TEST_F(PipelineImplTest, EndingThePipelineFailsWhatIsOnItsWay) {
  workers_[1]->set_misbehaviour(Misbehaviour::kSilent);
  Start();
  auto future = Send(SomeStep(1), SomeTokens(6, 0));
  pipeline_.reset();
  EXPECT_THAT(future.get(), StatusIs(absl::StatusCode::kCancelled));
}

// The other head's owner computed it before it heard.
TEST_F(PipelineImplTest, AWithdrawnStepMayBeSkippedByOneHeadAndNotByAnother) {
  Start();
  workers_[2]->set_misbehaviour(Misbehaviour::kWithdrawn);
  auto first = Send(SomeStep(5), SomeTokens(6, 1));
  auto second = Send(SomeStep(5), SomeTokens(6, 2));
  const std::vector<uint64_t> numbers = {1, 2, 3};
  pipeline_->Withdraw(numbers);
  for (auto* future : {&first, &second}) {
    ASSERT_OK_AND_ASSIGN(const StepOutcome outcome, future->get());
    EXPECT_TRUE(outcome.skipped);
    EXPECT_TRUE(outcome.rows.empty());
  }
  EXPECT_EQ(pipeline_->times().decode_totals.steps, 0u);
  // Number 3 was not on its way then.
  workers_[2]->set_misbehaviour(Misbehaviour::kNone);
  ASSERT_OK_AND_ASSIGN(const StepOutcome outcome, Run(SomeStep(5), SomeTokens(6, 3)));
  EXPECT_FALSE(outcome.skipped);
  EXPECT_EQ(outcome.rows.size(), 3u);
  EXPECT_OK(pipeline_->status());
}

class MisbehaviourTest : public PipelineImplTest,
                         public ::testing::WithParamInterface<Misbehaviour> {};

TEST_P(MisbehaviourTest, BreaksThePipelineAndNamesTheWorker) {
  Start();
  EXPECT_THAT(RunWith(GetParam()),
              StatusIs(absl::StatusCode::kUnavailable, HasSubstr("worker name-of-w-c")));
  broken_.get_future().get();
  EXPECT_THAT(pipeline_->status(), StatusIs(absl::StatusCode::kUnavailable));
}

INSTANTIATE_TEST_SUITE_P(Cluster, MisbehaviourTest,
                         ::testing::Values(Misbehaviour::kWrongWorker, Misbehaviour::kWrongSizes,
                                           Misbehaviour::kWrongId, Misbehaviour::kWrongNumber,
                                           Misbehaviour::kGarbage, Misbehaviour::kDiesOnStep,
                                           Misbehaviour::kSkips));

TEST_F(PipelineImplTest, AnsweringTwiceBreaksThePipeline) {
  Start();
  workers_[2]->set_misbehaviour(Misbehaviour::kTwice);
  (void)Run(SomeStep(1), SomeTokens(6, 0));
  broken_.get_future().get();
  EXPECT_THAT(pipeline_->status(),
              StatusIs(absl::StatusCode::kUnavailable, HasSubstr("after step 1")));
}

TEST_F(PipelineImplTest, ALostFirstStageIsNamed) {
  Start();
  workers_[0]->Kill();
  broken_.get_future().get();
  EXPECT_THAT(pipeline_->status(),
              StatusIs(absl::StatusCode::kUnavailable, HasSubstr("name-of-w-a")));
}

}  // namespace
}  // namespace renga::cluster

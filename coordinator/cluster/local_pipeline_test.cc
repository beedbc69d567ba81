// The pipeline over a worker of the same process: answers and ends come without gRPC, and neither
// side trips over the other's going first.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <future>
#include <memory>
#include <thread>
#include <utility>
#include <vector>

#include "base/testing/status_matchers.h"
#include "coordinator/cluster/pipeline_impl.h"
#include "coordinator/cluster/testing/fake_workers.h"
#include "transport/local_worker.h"
#include "transport/wire.h"

namespace renga::cluster {
namespace {

using ::renga::testing::StatusIs;
using ::testing::AllOf;
using ::testing::HasSubstr;

// Answers each frame on a thread of its own.
class AnsweringWorker {
 public:
  static constexpr int64_t kWidth = 4;
  static constexpr int64_t kVocabulary = 100;
  static constexpr uint64_t kEpoch = 77;

  AnsweringWorker()
      : door_(std::make_shared<transport::LocalWorker>(transport::LocalWorker::Functions{
            .run_frame =
                [this](proto::StepFrame frame) {
                  threads_.emplace_back([this, frame = std::move(frame)] { Answer(frame); });
                },
            .attach_results =
                [this](uint64_t epoch, std::shared_ptr<transport::ResultSink> sink) {
                  EXPECT_EQ(epoch, kEpoch);
                  sink_ = std::move(sink);
                },
            .withdraw_steps =
                [this](uint64_t epoch, std::span<const uint64_t> numbers) {
                  EXPECT_EQ(epoch, kEpoch);
                  withdrawn_.insert(withdrawn_.end(), numbers.begin(), numbers.end());
                }})) {}

  ~AnsweringWorker() {
    for (std::thread& thread : threads_) thread.join();
  }

  const std::shared_ptr<transport::LocalWorker>& door() const { return door_; }
  transport::ResultSink& sink() { return *sink_; }
  void set_worker_index(uint32_t index) { worker_index_ = index; }
  void set_silent() { silent_ = true; }
  // By the test's thread.
  const std::vector<uint64_t>& withdrawn() const { return withdrawn_; }

  proto::StepResult ResultOf(uint64_t number) const {
    proto::StepResult result;
    result.set_epoch(kEpoch);
    result.set_number(number);
    result.set_worker_index(worker_index_);
    return result;
  }

 private:
  void Answer(const proto::StepFrame& frame) {
    if (silent_) return;
    ASSERT_OK_AND_ASSIGN(const model::Step step, transport::FromProto(frame.step()));
    ASSERT_OK_AND_ASSIGN(
        const std::vector<float> rows,
        transport::UnpackActivations(frame, step.token_count(), kWidth, base::DataType::kF32));
    proto::StepResult result = ResultOf(step.number);
    for (const model::HeadRow& row : FakeAnswer(step, rows, kWidth, 0, kVocabulary)) {
      *result.add_rows() = transport::ToProto(row);
    }
    sink_->Write(std::move(result));
  }

  uint32_t worker_index_ = 0;
  bool silent_ = false;
  std::vector<uint64_t> withdrawn_;
  std::shared_ptr<transport::ResultSink> sink_;
  std::vector<std::thread> threads_;
  const std::shared_ptr<transport::LocalWorker> door_;
};

class LocalPipelineTest : public ::testing::Test {
 protected:
  static constexpr int64_t kWidth = AnsweringWorker::kWidth;
  static constexpr int64_t kVocabulary = AnsweringWorker::kVocabulary;

  void Start() {
    dialer_.Register("w-a", nullptr, worker_.door());
    PipelineOptions options;
    options.dialer = &dialer_;
    options.epoch = AnsweringWorker::kEpoch;
    options.model.config.d_model = kWidth;
    options.model.config.vocab_size = kVocabulary;
    options.limits.max_step_tokens = 16;
    options.limits.max_step_outputs = 8;
    options.stages = {{0}};
    options.embed = [](std::span<const model::TokenId> tokens) { return RowsOf(tokens); };
    options.on_broken = [this] { broken_.set_value(); };
    options.workers.push_back({.id = "w-a",
                               .name = "name-of-w-a",
                               .address = "inproc:w-a",
                               .head_rows = model::BlockRows(0, kVocabulary)});
    pipeline_ = std::make_shared<PipelineImpl>(std::move(options));
  }

  static std::vector<float> RowsOf(std::span<const model::TokenId> tokens) {
    std::vector<float> rows;
    for (const model::TokenId token : tokens) {
      rows.insert(rows.end(), kWidth, static_cast<float>(token));
    }
    return rows;
  }
  static model::Step SomeStep() {
    model::Step step;
    step.slots.push_back({.sequence = 1, .token_count = 2, .output_count = 1, .top_k = 3});
    return step;
  }

  std::future<absl::StatusOr<StepOutcome>> Send(std::vector<model::TokenId> tokens) {
    auto promise = std::make_shared<std::promise<absl::StatusOr<StepOutcome>>>();
    auto future = promise->get_future();
    pipeline_->Submit(
        SomeStep(), std::move(tokens),
        [promise](absl::StatusOr<StepOutcome> outcome) { promise->set_value(std::move(outcome)); },
        /*early=*/nullptr);
    return future;
  }

  transport::InProcessDialer dialer_{nullptr};
  AnsweringWorker worker_;
  std::promise<void> broken_;
  std::shared_ptr<PipelineImpl> pipeline_;
};

TEST_F(LocalPipelineTest, AnswersAreTheWorkers) {
  Start();
  for (int round = 0; round < 5; ++round) {
    const std::vector<model::TokenId> tokens = {round, 2 * round + 1};
    ASSERT_OK_AND_ASSIGN(const StepOutcome outcome, Send(tokens).get());
    const auto expected = FakeAnswer(SomeStep(), RowsOf(tokens), kWidth, 0, kVocabulary);
    ASSERT_EQ(outcome.rows.size(), 1u);
    EXPECT_EQ(outcome.rows[0].ids, expected[0].ids);
    EXPECT_EQ(outcome.rows[0].logits, expected[0].logits);
  }
  EXPECT_OK(pipeline_->status());
}

TEST_F(LocalPipelineTest, AWorkerThatLeavesBreaksThePipelineAndIsNamed) {
  worker_.set_silent();
  Start();
  auto waiting = Send({1, 2});
  worker_.door()->Close();
  worker_.sink().End(absl::UnavailableError("the worker is leaving"));
  const auto names_it = StatusIs(absl::StatusCode::kUnavailable,
                                 AllOf(HasSubstr("name-of-w-a"), HasSubstr("leaving")));
  EXPECT_THAT(waiting.get(), names_it);
  broken_.get_future().get();
  EXPECT_THAT(Send({1, 2}).get(), names_it);
}

TEST_F(LocalPipelineTest, AWorkerThatHasLeftBreaksThePipelineAtOnce) {
  worker_.door()->Close();
  Start();
  broken_.get_future().get();
  EXPECT_THAT(pipeline_->status(),
              StatusIs(absl::StatusCode::kUnavailable, HasSubstr("name-of-w-a")));
}

TEST_F(LocalPipelineTest, AFrameToAWorkerThatHasLeftBreaksThePipeline) {
  Start();
  worker_.door()->Close();
  EXPECT_THAT(Send({1, 2}).get(),
              StatusIs(absl::StatusCode::kUnavailable, HasSubstr("name-of-w-a")));
}

TEST_F(LocalPipelineTest, AnAnswerInAnotherNameBreaksThePipeline) {
  worker_.set_worker_index(1);
  Start();
  EXPECT_THAT(Send({1, 2}).get(),
              StatusIs(absl::StatusCode::kUnavailable, HasSubstr("name-of-w-a")));
}

TEST_F(LocalPipelineTest, WithdrawnStepsAreToldWhileTheyAreOnTheirWay) {
  worker_.set_silent();
  Start();
  auto waiting = Send({1, 2});
  auto next = Send({1, 2});
  const std::vector<uint64_t> numbers = {2, 1, 3};
  pipeline_->Withdraw(numbers);
  EXPECT_THAT(worker_.withdrawn(), ::testing::ElementsAre(2, 1));
  for (const uint64_t number : {1, 2}) {
    proto::StepResult result = worker_.ResultOf(number);
    result.set_skipped(true);
    worker_.sink().Write(std::move(result));
  }
  for (auto* future : {&waiting, &next}) {
    ASSERT_OK_AND_ASSIGN(const StepOutcome outcome, future->get());
    EXPECT_TRUE(outcome.skipped);
  }
  pipeline_->Withdraw(numbers);
  EXPECT_EQ(worker_.withdrawn().size(), 2u) << "none is on its way";
}

TEST_F(LocalPipelineTest, ResultsAfterItsEndReachNobody) {
  worker_.set_silent();
  Start();
  auto waiting = Send({1, 2});
  pipeline_.reset();
  EXPECT_THAT(waiting.get(), StatusIs(absl::StatusCode::kCancelled));
  worker_.sink().Write(worker_.ResultOf(1));
  worker_.sink().End(absl::OkStatus());
}

}  // namespace
}  // namespace renga::cluster

// What a stage does with withdrawn steps, over a shard that only counts.
#include "worker/service/stage.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <functional>
#include <memory>
#include <utility>
#include <vector>

#include "base/testing/status_matchers.h"
#include "transport/local_worker.h"
#include "transport/wire.h"

namespace renga::worker {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::SizeIs;

constexpr uint64_t kStageEpoch = 3;
constexpr int64_t kStageWidth = 4;
constexpr int64_t kStageLayers = 4;

// Remembers what was done to which step.
class CountingShard : public engine::Shard {
 public:
  std::vector<uint64_t> computed;
  std::vector<uint64_t> skipped;
  std::vector<uint64_t> heads;
  // Before each layer.
  std::function<void(int64_t layer)> on_layer = [](int64_t) {};
  int64_t layers_computed = 0;

  absl::StatusOr<std::vector<float>> Embed(std::span<const model::TokenId> tokens) override {
    return std::vector<float>(tokens.size() * kStageWidth, 1);
  }
  absl::Status RunLayers(const model::Step& step, std::span<float>, base::Communicator* group,
                         const engine::StepWatch& withdrawn) override {
    computed.push_back(step.number);
    for (int64_t layer = 0; layer < kStageLayers; ++layer) {
      on_layer(layer);
      if (group == nullptr && withdrawn()) break;
      ++layers_computed;
    }
    return absl::OkStatus();
  }
  absl::Status SkipLayers(const model::Step& step) override {
    skipped.push_back(step.number);
    return absl::OkStatus();
  }
  uint32_t left_out() const override { return 0; }
  absl::StatusOr<std::vector<model::HeadRow>> RunHead(const model::Step& step,
                                                      std::span<const float>) override {
    heads.push_back(step.number);
    return std::vector<model::HeadRow>(static_cast<size_t>(step.output_count()));
  }
  absl::Status ObserveNeurons(engine::NeuronObserver) override {
    return absl::UnimplementedError("not here");
  }
  absl::Status ObserveExperts(engine::ExpertObserver) override {
    return absl::UnimplementedError("not here");
  }
  void ResetSequences() override {}
  const model::ShardSpec& spec() const override { return spec_; }
  int64_t memory_bytes() const override { return 0; }
  const std::vector<engine::HeldMatrix>& newly_packed() const override { return none_; }
  absl::StatusOr<bool> LoadMore() override { return false; }
  std::vector<engine::MatrixKey> Unpacked() const override { return {}; }
  engine::ResidencyReport residency() const override { return {}; }

 private:
  const model::ShardSpec spec_ = {.layers = {0, kStageLayers}, .head_rows = {}};
  const std::vector<engine::HeldMatrix> none_;
};

// Connections to members who ask for nothing.
class QuietGroup : public base::Communicator {
 public:
  int rank() const override { return 0; }
  int size() const override { return 2; }
  absl::Status AllReduce(std::span<float>) override { return absl::OkStatus(); }
  absl::Status AllGather(std::span<const std::byte>, std::span<std::byte>) override {
    return absl::OkStatus();
  }
  absl::Status Broadcast(int, std::span<std::byte>) override { return absl::OkStatus(); }
  absl::Duration TakeExchangeTime() override { return absl::ZeroDuration(); }
  void Cancel() override {}
};

proto::StepFrame Frame(uint64_t number, proto::FrameTarget target = proto::FRAME_TARGET_LAYERS) {
  model::Step step;
  step.epoch = kStageEpoch;
  step.number = number;
  step.slots = {{.sequence = 1, .token_count = 2, .output_count = 1, .top_k = 1}};
  proto::StepFrame frame;
  *frame.mutable_step() = transport::ToProto(step);
  frame.set_target(target);
  const int64_t rows = target == proto::FRAME_TARGET_HEAD ? 1 : 2;
  if (target == proto::FRAME_TARGET_EMBEDDING) {
    frame.add_tokens(1);
    frame.add_tokens(2);
  } else {
    transport::PackActivations(std::vector<float>(static_cast<size_t>(rows * kStageWidth), 1),
                               frame);
  }
  return frame;
}
proto::StepFrame SkippedFrame(uint64_t number, proto::FrameTarget target) {
  proto::StepFrame frame = Frame(number, target);
  frame.clear_activations();
  frame.set_skipped(true);
  return frame;
}

class StageTest : public ::testing::Test {
 protected:
  StageTest() {
    options_.epoch = kStageEpoch;
    options_.d_model = kStageWidth;
    options_.vocab_size = 10;
    options_.shard = &shard_;
    options_.withdrawn = withdrawn_;
    options_.dialer = &dialer_;
    options_.emit = [this](proto::StepResult result) { results_.push_back(std::move(result)); };
  }

  // Worker 0 is this one, worker 1 another.
  static RoutePeer Peer(uint32_t index) {
    return {.worker_index = index, .address = {.address = "inproc:next", .name = "next"}};
  }
  void StartLast() {
    options_.routes.heads = {Peer(1), Peer(0)};
    Start();
  }
  void StartFirst() {
    options_.routes.next_stage = {Peer(1)};
    Start();
  }
  void Start() {
    dialer_.Register("next", nullptr, next_);
    stage_ = std::make_unique<Stage>(options_);
  }
  void Withdraw(std::vector<uint64_t> numbers) { withdrawn_->Add(numbers); }

  // What the other worker got of a step.
  void ExpectSent(size_t index, uint64_t number, bool skipped) const {
    ASSERT_GT(sent_.size(), index);
    EXPECT_EQ(sent_[index].step().number(), number);
    EXPECT_EQ(sent_[index].skipped(), skipped);
    EXPECT_EQ(sent_[index].activations().empty(), skipped);
  }
  void ExpectAnswered(size_t index, uint64_t number, bool skipped) const {
    ASSERT_GT(results_.size(), index);
    EXPECT_EQ(results_[index].error_message(), "");
    EXPECT_EQ(results_[index].number(), number);
    EXPECT_EQ(results_[index].skipped(), skipped);
    EXPECT_EQ(results_[index].rows_size(), skipped ? 0 : 1);
  }

  CountingShard shard_;
  const std::shared_ptr<WithdrawnSteps> withdrawn_ = std::make_shared<WithdrawnSteps>(kStageEpoch);
  transport::InProcessDialer dialer_{nullptr};
  std::vector<proto::StepFrame> sent_;
  std::vector<proto::StepResult> results_;
  const std::shared_ptr<transport::LocalWorker> next_ =
      std::make_shared<transport::LocalWorker>(transport::LocalWorker::Functions{
          .run_frame = [this](proto::StepFrame frame) { sent_.push_back(std::move(frame)); },
          .attach_results = nullptr,
          .withdraw_steps = nullptr});
  Stage::Options options_;
  std::unique_ptr<Stage> stage_;
};

TEST_F(StageTest, AWithdrawnStepGoesOnWithoutBeingComputed) {
  StartFirst();
  Withdraw({2});
  for (const uint64_t number : {1, 2, 3}) EXPECT_TRUE(stage_->Run(Frame(number), 0));
  EXPECT_THAT(shard_.computed, ElementsAre(1, 3));
  EXPECT_THAT(shard_.skipped, ElementsAre(2));
  EXPECT_THAT(sent_, SizeIs(3));
  for (size_t i = 0; i < 3; ++i) ExpectSent(i, i + 1, /*skipped=*/i == 1);
  EXPECT_EQ(sent_[1].timings_size(), 0);
  EXPECT_THAT(results_, SizeIs(0));
}

TEST_F(StageTest, AStepThatIsWithdrawnBetweenTwoLayersGoesNoFurther) {
  StartFirst();
  shard_.on_layer = [&](int64_t layer) {
    if (layer == 2) Withdraw({1});
  };
  EXPECT_TRUE(stage_->Run(Frame(1), 0));
  EXPECT_EQ(shard_.layers_computed, 2);
  ExpectSent(0, 1, /*skipped=*/true);
}

TEST_F(StageTest, TheLastStageAndItsHeadsAnswerASkippedStep) {
  StartLast();
  EXPECT_TRUE(stage_->Run(SkippedFrame(1, proto::FRAME_TARGET_LAYERS), 0));
  EXPECT_TRUE(stage_->Run(Frame(2), 0));
  ExpectSent(0, 1, true);
  ExpectAnswered(0, 1, true);
  ExpectSent(1, 2, false);
  ExpectAnswered(1, 2, false);
  EXPECT_THAT(shard_.skipped, ElementsAre(1));
  EXPECT_THAT(shard_.heads, ElementsAre(2));
}

TEST_F(StageTest, AHeadsOwnerDecidesForItself) {
  StartLast();
  Withdraw({5});
  EXPECT_TRUE(stage_->Run(Frame(4, proto::FRAME_TARGET_HEAD), 0));
  EXPECT_TRUE(stage_->Run(Frame(5, proto::FRAME_TARGET_HEAD), 0));
  EXPECT_TRUE(stage_->Run(SkippedFrame(6, proto::FRAME_TARGET_HEAD), 0));
  ExpectAnswered(0, 4, false);
  ExpectAnswered(1, 5, true);
  ExpectAnswered(2, 6, true);
  EXPECT_THAT(shard_.heads, ElementsAre(4));
  EXPECT_THAT(shard_.skipped, ElementsAre()) << "a head keeps no sequences";
}

TEST_F(StageTest, AMemberOfAGroupGoesByWhatTheFrameSays) {
  StageGroup group(
      {.connections = std::make_unique<QuietGroup>(), .backend = nullptr, .on_event = nullptr});
  options_.group = &group;
  StartFirst();
  Withdraw({1, 2});
  EXPECT_TRUE(stage_->Run(Frame(1), 0));
  EXPECT_TRUE(stage_->Run(SkippedFrame(2, proto::FRAME_TARGET_LAYERS), 0));
  EXPECT_THAT(shard_.computed, ElementsAre(1));
  EXPECT_EQ(shard_.layers_computed, kStageLayers);
  EXPECT_THAT(shard_.skipped, ElementsAre(2));
  ExpectSent(0, 1, false);
  ExpectSent(1, 2, true);
}

// It alone gets the tokens, so what it decides holds for the whole first stage.
TEST_F(StageTest, TheEmbeddingDecidesForAllMembersOfTheFirstStage) {
  options_.routes.first_stage = {Peer(1), Peer(0)};
  StartLast();
  Withdraw({1});
  EXPECT_TRUE(stage_->Run(Frame(1, proto::FRAME_TARGET_EMBEDDING), 0));
  ASSERT_THAT(sent_, SizeIs(2)) << "a member of the stage, and a head";
  for (const proto::StepFrame& frame : sent_) {
    EXPECT_TRUE(frame.skipped());
    EXPECT_EQ(frame.tokens_size(), 0);
  }
  EXPECT_EQ(sent_[0].target(), proto::FRAME_TARGET_LAYERS);
  EXPECT_EQ(sent_[1].target(), proto::FRAME_TARGET_HEAD);
  EXPECT_THAT(shard_.skipped, ElementsAre(1));
  ExpectAnswered(0, 1, true);
}

TEST_F(StageTest, ASkippedFrameWithSomethingToComputeIsRefused) {
  StartLast();
  proto::StepFrame frame = Frame(1);
  frame.set_skipped(true);
  EXPECT_FALSE(stage_->Run(frame, 0));
  ASSERT_THAT(results_, SizeIs(1));
  EXPECT_THAT(results_[0].error_message(), HasSubstr("frame.skipped"));
  EXPECT_THAT(shard_.skipped, ElementsAre());
}

TEST(WithdrawnStepsTest, KnowsTheNewestOnes) {
  WithdrawnSteps steps(kStageEpoch);
  EXPECT_FALSE(steps.Contains(1));
  for (uint64_t number = 1; number <= 1000; number += 3) {
    steps.Add(std::vector<uint64_t>{number});
    EXPECT_TRUE(steps.Contains(number));
    EXPECT_FALSE(steps.Contains(number + 1));
    EXPECT_FALSE(steps.Contains(number + 64));
    if (number > 16) {
      EXPECT_TRUE(steps.Contains(number - 15));
    }
  }
}

}  // namespace
}  // namespace renga::worker

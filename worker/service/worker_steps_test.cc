// Steps through workers over real sockets: the engine's bits whatever the cut, and nothing a peer
// sends brings a worker down.
#include <gmock/gmock.h>
#include <grpcpp/channel.h>
#include <grpcpp/client_context.h>
#include <gtest/gtest.h>

#include <functional>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "base/testing/status_matchers.h"
#include "proto/worker.grpc.pb.h"
#include "transport/wire.h"
#include "worker/service/testing/test_setup.h"
#include "worker/service/testing/worker_driver.h"
#include "worker/service/testing/worker_fixture.h"

namespace renga::worker {
namespace {

using ::renga::testing::StatusIs;
using ::testing::AllOf;
using testing::ErrorOf;
using ::testing::HasSubstr;
using testing::MakeRows;
using testing::MakeStep;
using testing::SmallModel;
using testing::WorkerDriver;

constexpr int64_t kVocabulary = 5000;
constexpr int64_t kDModel = 128;

// A prompt in two chunks and two tokens after it.
std::vector<model::Step> Steps(uint64_t epoch) {
  return {MakeStep(epoch, 1, 0, 20), MakeStep(epoch, 2, 20, 17), MakeStep(epoch, 3, 37, 1),
          MakeStep(epoch, 4, 38, 1)};
}
std::vector<float> RowsOf(const model::Step& step) {
  return MakeRows(step.token_count(), kDModel, static_cast<uint32_t>(step.number));
}

class WorkerStepsTest : public testing::WorkerTest {
 protected:
  // A worker with the whole model under epoch 5 and its driver, results open.
  void StartWhole() {
    worker_ = Start(Options());
    driver_ = std::make_unique<WorkerDriver>(dialer_.get(), *worker_);
    ASSERT_OK(driver_->Load(OrderWhole(5)));
    driver_->OpenResults(5);
  }
  // Sends step `index` of Steps(5) under `number` and compares its answer.
  void ExpectRightAnswer(size_t index, uint64_t number) {
    static const auto* const kAnswers = new std::vector<std::vector<model::HeadRow>>(
        testing::ReferenceAnswers(SmallModel(), Steps(5)));
    model::Step step = Steps(5)[index];
    const std::vector<float> rows = RowsOf(step);
    step.number = number;
    ASSERT_OK(driver_->SendStep(step, rows));
    ASSERT_OK_AND_ASSIGN(const proto::StepResult result, driver_->NextResult());
    ASSERT_OK(ErrorOf(result));
    EXPECT_EQ(result.number(), number);
    EXPECT_EQ(testing::LogitsOf(result, kVocabulary), testing::LogitsOf((*kAnswers)[index]));
  }

  std::unique_ptr<WorkerServer> worker_;
  std::unique_ptr<WorkerDriver> driver_;
};

TEST_F(WorkerStepsTest, OneWorkerGivesTheEnginesBits) {
  StartWhole();
  for (size_t i = 0; i < 4; ++i) ExpectRightAnswer(i, i + 1);
}

TEST_F(WorkerStepsTest, AnswersSayWhereTheTimeWent) {
  StartWhole();
  ASSERT_OK(driver_->SendStep(Steps(5)[0], RowsOf(Steps(5)[0])));
  ASSERT_OK_AND_ASSIGN(const proto::StepResult result, driver_->NextResult());
  ASSERT_EQ(result.timings_size(), 2);
  EXPECT_FALSE(result.timings(0).head());
  EXPECT_GT(result.timings(0).compute_us(), 0u);
  EXPECT_TRUE(result.timings(1).head());
  EXPECT_GT(result.timings(1).compute_us(), 0u);
}

TEST_F(WorkerStepsTest, StagesAndHeadBlocksGiveTheSameBits) {
  // A: layer 0. B: layers 1 to 3 and the first rows. C: the other rows only.
  const model::ShardSpec specs[] = {{.layers = {0, 1}, .head_rows = {}},
                                    {.layers = {1, 4}, .head_rows = {0, 1999}},
                                    {.layers = {}, .head_rows = {1999, kVocabulary}}};
  std::vector<std::unique_ptr<WorkerServer>> workers;
  std::vector<std::unique_ptr<WorkerDriver>> drivers;
  std::vector<proto::LoadRequest> orders;
  for (uint32_t i = 0; i < 3; ++i) {
    workers.push_back(Start(Options()));
    drivers.push_back(std::make_unique<WorkerDriver>(dialer_.get(), *workers[i]));
    orders.push_back(SmallModel().MakeRequest(9, specs[i], testing::SmallLimits()));
    orders[i].set_worker_index(i);
  }
  testing::SetPeer(1, AddressOf(*workers[1], "w-b"), *orders[0].add_next_stage());
  testing::SetPeer(1, AddressOf(*workers[1], "w-b"), *orders[1].add_heads());
  testing::SetPeer(2, AddressOf(*workers[2], "w-c"), *orders[1].add_heads());
  // The first stage first: edges wait for their receivers to be loaded.
  for (uint32_t i = 0; i < 3; ++i) {
    ASSERT_OK(drivers[i]->Load(orders[i]));
    drivers[i]->OpenResults(9);
  }
  const std::vector<model::Step> steps = Steps(9);
  const auto expected = testing::ReferenceAnswers(SmallModel(), steps);
  // All of them in flight at once.
  for (const model::Step& step : steps) ASSERT_OK(drivers[0]->SendStep(step, RowsOf(step)));
  for (size_t i = 0; i < steps.size(); ++i) {
    ASSERT_OK_AND_ASSIGN(const proto::StepResult low, drivers[1]->NextResult());
    ASSERT_OK_AND_ASSIGN(const proto::StepResult high, drivers[2]->NextResult());
    ASSERT_OK(ErrorOf(low));
    ASSERT_OK(ErrorOf(high));
    auto logits = testing::LogitsOf(low, kVocabulary);
    const auto rest = testing::LogitsOf(high, kVocabulary);
    ASSERT_EQ(logits.size(), rest.size());
    for (size_t row = 0; row < logits.size(); ++row) {
      logits[row].insert(logits[row].end(), rest[row].begin(), rest[row].end());
    }
    EXPECT_EQ(logits, testing::LogitsOf(expected[i]));
    EXPECT_EQ(low.timings_size(), 3) << "both stages and its own head";
    EXPECT_EQ(high.timings_size(), 3);
  }
}

TEST_F(WorkerStepsTest, NarrowActivationsAreTakenForWhatTheyCarry) {
  for (const base::DataType type : {base::DataType::kF16, base::DataType::kQ8_0}) {
    StartWhole();
    const model::Step step = Steps(5)[0];
    const std::vector<float> arrived = transport::AsReceived(RowsOf(step), type);
    ASSERT_NE(arrived, RowsOf(step));
    ASSERT_OK(driver_->SendStep(step, arrived));
    ASSERT_OK_AND_ASSIGN(const proto::StepResult expected, driver_->NextResult());

    proto::LoadRequest order = OrderWhole(6);
    order.set_activation_type(transport::ToProto(type));
    ASSERT_OK(driver_->Load(order));
    driver_->OpenResults(6);
    proto::StepFrame frame;
    *frame.mutable_step() = transport::ToProto(step);
    frame.mutable_step()->set_epoch(6);
    frame.set_target(proto::FRAME_TARGET_LAYERS);
    transport::PackActivations(RowsOf(step), frame, type);
    ASSERT_OK(driver_->Send(frame));
    ASSERT_OK_AND_ASSIGN(const proto::StepResult result, driver_->NextResult());
    ASSERT_OK(ErrorOf(result));
    EXPECT_EQ(testing::LogitsOf(result, kVocabulary), testing::LogitsOf(expected, kVocabulary));

    // In another format than the plan's.
    frame.mutable_step()->set_number(2);
    transport::PackActivations(RowsOf(step), frame);
    ASSERT_OK(driver_->Send(frame));
    EXPECT_THAT(driver_->WaitForBrokenEdge(), StatusIs(absl::StatusCode::kInvalidArgument));
    driver_.reset();
    worker_.reset();
  }
}

TEST_F(WorkerStepsTest, AllHeadBlocksSeeTheSameNarrowRows) {
  const int64_t cut = 1999;
  // The last stage holds none of the head's rows, or some of them; the other worker the rest.
  std::vector<std::vector<std::vector<float>>> answers;
  for (const int64_t own : {int64_t{0}, cut}) {
    const model::ShardSpec specs[] = {{.layers = {0, 4}, .head_rows = {0, own}},
                                      {.layers = {}, .head_rows = {own, kVocabulary}}};
    std::vector<std::unique_ptr<WorkerServer>> workers;
    std::vector<std::unique_ptr<WorkerDriver>> drivers;
    std::vector<proto::LoadRequest> orders;
    for (uint32_t i = 0; i < 2; ++i) {
      workers.push_back(Start(Options()));
      drivers.push_back(std::make_unique<WorkerDriver>(dialer_.get(), *workers[i]));
      orders.push_back(SmallModel().MakeRequest(9, specs[i], testing::SmallLimits()));
      orders[i].set_worker_index(i);
      orders[i].set_activation_type(proto::ACTIVATION_TYPE_Q8_0);
    }
    if (own > 0) testing::SetPeer(0, AddressOf(*workers[0], "w-a"), *orders[0].add_heads());
    testing::SetPeer(1, AddressOf(*workers[1], "w-b"), *orders[0].add_heads());
    for (uint32_t i = 0; i < 2; ++i) {
      ASSERT_OK(drivers[i]->Load(orders[i]));
      drivers[i]->OpenResults(9);
    }
    const model::Step step = Steps(9)[0];
    proto::StepFrame frame;
    *frame.mutable_step() = transport::ToProto(step);
    frame.set_target(proto::FRAME_TARGET_LAYERS);
    transport::PackActivations(RowsOf(step), frame, base::DataType::kQ8_0);
    ASSERT_OK(drivers[0]->Send(frame));
    std::vector<std::vector<float>> logits(static_cast<size_t>(step.output_count()));
    for (uint32_t i = own > 0 ? 0 : 1; i < 2; ++i) {
      ASSERT_OK_AND_ASSIGN(const proto::StepResult result, drivers[i]->NextResult());
      ASSERT_OK(ErrorOf(result));
      const auto rows = testing::LogitsOf(result, kVocabulary);
      ASSERT_EQ(rows.size(), logits.size());
      for (size_t row = 0; row < rows.size(); ++row) {
        logits[row].insert(logits[row].end(), rows[row].begin(), rows[row].end());
      }
    }
    answers.push_back(std::move(logits));
  }
  EXPECT_EQ(answers[0], answers[1]);
}

// The first steps, then one that is withdrawn and its successor, which are taken back: what follows
// has the bits that it has without them.
TEST_F(WorkerStepsTest, WithdrawnStepsChangeNoBit) {
  StartWhole();
  ExpectRightAnswer(0, 1);
  ExpectRightAnswer(1, 2);
  bool skipped = false;
  uint64_t number = 2;
  // A withdrawal that is overtaken by its step comes too late.
  for (int round = 0; round < 1000 && !skipped; ++round) {
    ASSERT_OK(driver_->Withdraw(5, {number + 1, number + 2}));
    for (int64_t position : {37, 38}) {
      model::Step step = MakeStep(5, ++number, position, 1);
      ASSERT_OK(driver_->SendStep(step, MakeRows(1, kDModel, 99)));
    }
    for (int i = 0; i < 2; ++i) {
      ASSERT_OK_AND_ASSIGN(const proto::StepResult result, driver_->NextResult());
      ASSERT_OK(ErrorOf(result));
      EXPECT_EQ(result.number(), number - 1 + i);
      EXPECT_EQ(result.rows_size(), result.skipped() ? 0 : 1);
      skipped = result.skipped();
    }
    model::Step back;
    back.epoch = 5;
    back.number = ++number;
    back.commands = {
        {.kind = model::KvCommand::Kind::kTruncate, .sequence = 1, .tokens = 37, .blocks = {}}};
    ASSERT_OK(driver_->SendStep(back, {}));
    ASSERT_OK(driver_->NextResult());
  }
  EXPECT_TRUE(skipped);
  ExpectRightAnswer(2, number + 1);
  ExpectRightAnswer(3, number + 2);
}

TEST_F(WorkerStepsTest, WhatIsNoWithdrawalEndsTheResults) {
  StartWhole();
  ExpectRightAnswer(0, 1);  // so these results are open before others are
  for (const auto& send : std::vector<std::function<absl::Status()>>{
           [&] { return driver_->SendResultsBytes("what?"); },
           [&] { return driver_->Withdraw(4, {1}); },
           [&] {
             return driver_->Withdraw(5, {1, 0});
           },
           [&] { return driver_->Withdraw(5, std::vector<uint64_t>(17, 1)); }}) {
    driver_->OpenResults(5);
    ASSERT_OK(send());
    EXPECT_THAT(driver_->NextResult(),
                StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("withdrawal")));
  }
  // The epoch goes on, for whoever listens.
  driver_->OpenResults(5);
  ExpectRightAnswer(1, 2);
}

TEST_F(WorkerStepsTest, AResultWaitsForItsReader) {
  worker_ = Start(Options());
  driver_ = std::make_unique<WorkerDriver>(dialer_.get(), *worker_);
  ASSERT_OK(driver_->Load(OrderWhole(5)));
  ASSERT_OK(driver_->SendStep(Steps(5)[0], RowsOf(Steps(5)[0])));
  while (coordinator_.WaitForHeartbeat().steps_done() == 0) {
  }
  driver_->OpenResults(5);
  ASSERT_OK_AND_ASSIGN(const proto::StepResult result, driver_->NextResult());
  EXPECT_EQ(result.number(), 1u);
}

TEST_F(WorkerStepsTest, OnlyThePresentEpochIsAnswered) {
  StartWhole();
  WorkerDriver late(dialer_.get(), *worker_);
  late.OpenResults(4);
  EXPECT_THAT(late.NextResult(), StatusIs(absl::StatusCode::kAborted));
  late.OpenResults(6);
  EXPECT_THAT(late.NextResult(), StatusIs(absl::StatusCode::kFailedPrecondition));
  // Steps of other epochs are dropped without a word.
  ASSERT_OK(driver_->SendStep(MakeStep(4, 1, 0, 5), MakeRows(5, kDModel, 1)));
  ASSERT_OK(driver_->SendStep(MakeStep(6, 1, 0, 5), MakeRows(5, kDModel, 1)));
  ExpectRightAnswer(0, 1);
  // A new plan ends the old one's stream and forgets its sequences.
  ASSERT_OK(late.Load(OrderWhole(6)));
  EXPECT_THAT(driver_->NextResult(), StatusIs(absl::StatusCode::kAborted));
  late.OpenResults(6);
  ASSERT_OK(late.SendStep(MakeStep(6, 1, 0, 5), MakeRows(5, kDModel, 1)));
  ASSERT_OK_AND_ASSIGN(const proto::StepResult result, late.NextResult());
  EXPECT_OK(ErrorOf(result));
}

TEST_F(WorkerStepsTest, EachStepIsDoneOnce) {
  StartWhole();
  ExpectRightAnswer(0, 1);
  ASSERT_OK(driver_->SendStep(Steps(5)[0], RowsOf(Steps(5)[0])));  // again
  model::Step unnumbered = Steps(5)[1];
  unnumbered.number = 0;
  ASSERT_OK(driver_->SendStep(unnumbered, RowsOf(unnumbered)));
  ExpectRightAnswer(1, 2);
}

TEST_F(WorkerStepsTest, ANewReaderOfResultsReplacesTheOld) {
  StartWhole();
  ExpectRightAnswer(0, 1);
  WorkerDriver second(dialer_.get(), *worker_);
  second.OpenResults(5);
  EXPECT_THAT(driver_->NextResult(), StatusIs(absl::StatusCode::kAborted));
  ASSERT_OK(driver_->SendStep(Steps(5)[1], RowsOf(Steps(5)[1])));
  ASSERT_OK_AND_ASSIGN(const proto::StepResult result, second.NextResult());
  EXPECT_EQ(result.number(), 2u);
}

TEST_F(WorkerStepsTest, ALostNextStageIsReported) {
  worker_ = Start(Options());
  driver_ = std::make_unique<WorkerDriver>(dialer_.get(), *worker_);
  ASSERT_OK(driver_->Load(Order(5, {.layers = {0, 2}, .head_rows = {}})));
  driver_->OpenResults(5);
  ASSERT_OK(driver_->SendStep(Steps(5)[0], RowsOf(Steps(5)[0])));
  ASSERT_OK_AND_ASSIGN(const proto::StepResult result, driver_->NextResult());
  EXPECT_EQ(result.number(), 1u);
  EXPECT_THAT(ErrorOf(result), StatusIs(absl::StatusCode::kUnavailable, HasSubstr("nobody")));
}

TEST_F(WorkerStepsTest, BadFramesAreRefusedAndChangeNothing) {
  StartWhole();
  ExpectRightAnswer(0, 1);
  using Damage = std::function<void(proto::StepFrame&)>;
  const auto slot = [](std::function<void(proto::StepSlot&)> change) -> Damage {
    return [change](proto::StepFrame& f) { change(*f.mutable_step()->mutable_slots(0)); };
  };
  const auto command = [](proto::KvCommand::Kind kind, int32_t block) -> Damage {
    return [kind, block](proto::StepFrame& f) {
      proto::KvCommand& added = *f.mutable_step()->add_commands();
      added.set_kind(kind);
      added.set_sequence(1);
      added.set_source(77);
      added.set_tokens(32);
      added.add_blocks(block);
    };
  };
  const Damage damages[] = {
      [](proto::StepFrame& f) { f.mutable_activations()->pop_back(); },
      [](proto::StepFrame& f) { f.mutable_activations()->append(4 * kDModel, 'x'); },
      [](proto::StepFrame& f) { f.clear_activations(); },
      [](proto::StepFrame& f) { f.set_activation_type(proto::ACTIVATION_TYPE_UNSPECIFIED); },
      [](proto::StepFrame& f) { f.set_target(proto::FRAME_TARGET_UNSPECIFIED); },
      [](proto::StepFrame& f) { f.set_target(static_cast<proto::FrameTarget>(17)); },
      [](proto::StepFrame& f) { f.mutable_step()->clear_slots(); },
      [](proto::StepFrame& f) {
        for (int i = 0; i < 10'000; ++i) f.add_timings();
      },
      slot([](proto::StepSlot& s) { s.set_sequence(99); }),
      slot([](proto::StepSlot& s) { s.set_first_position(19); }),
      slot([](proto::StepSlot& s) { s.set_first_position(-1); }),
      slot([](proto::StepSlot& s) { s.set_token_count(0); }),
      slot([](proto::StepSlot& s) { s.set_token_count(-17); }),
      slot([](proto::StepSlot& s) { s.set_token_count(int64_t{1} << 60); }),
      slot([](proto::StepSlot& s) { s.set_token_count(33); }),
      slot([](proto::StepSlot& s) { s.set_output_count(18); }),
      slot([](proto::StepSlot& s) { s.set_output_count(-1); }),
      slot([](proto::StepSlot& s) { s.set_top_k(-5); }),
      command(proto::KvCommand::KIND_UNSPECIFIED, 1),
      command(proto::KvCommand::KIND_APPEND_BLOCKS, 3),  // in use
      command(proto::KvCommand::KIND_APPEND_BLOCKS, 8),  // beyond the cache
      command(proto::KvCommand::KIND_APPEND_BLOCKS, -1),
      command(proto::KvCommand::KIND_SHARE, 0),
      [](proto::StepFrame& f) {
        proto::KvCommand& added = *f.mutable_step()->add_commands();
        added.set_kind(proto::KvCommand::KIND_TRUNCATE);
        added.set_sequence(1);
        added.set_tokens(1000);
      },
  };
  uint64_t number = 1;
  for (const Damage& damage : damages) {
    proto::StepFrame frame;
    const model::Step step = Steps(5)[1];
    *frame.mutable_step() = transport::ToProto(step);
    frame.mutable_step()->set_number(++number);
    frame.set_target(proto::FRAME_TARGET_LAYERS);
    transport::PackActivations(RowsOf(step), frame);
    damage(frame);
    ASSERT_OK(driver_->Send(frame));
    ASSERT_OK_AND_ASSIGN(const proto::StepResult result, driver_->NextResult());
    EXPECT_EQ(result.number(), number);
    EXPECT_THAT(ErrorOf(result), StatusIs(absl::StatusCode::kInvalidArgument))
        << frame.step().ShortDebugString();
    EXPECT_EQ(result.rows_size(), 0);
  }
  for (size_t i = 1; i < 4; ++i) ExpectRightAnswer(i, ++number);
}

TEST_F(WorkerStepsTest, BadHeadFramesAreRefused) {
  StartWhole();
  proto::StepFrame frame;
  *frame.mutable_step() = transport::ToProto(Steps(5)[0]);
  frame.set_target(proto::FRAME_TARGET_HEAD);
  transport::PackActivations(MakeRows(19, kDModel, 1), frame);  // of 20 outputs
  ASSERT_OK(driver_->Send(frame));
  ASSERT_OK_AND_ASSIGN(proto::StepResult result, driver_->NextResult());
  EXPECT_THAT(ErrorOf(result), StatusIs(absl::StatusCode::kInvalidArgument));

  // A stage without head rows is asked for some.
  WorkerDriver other(dialer_.get(), *worker_);
  ASSERT_OK(other.Load(Order(6, {.layers = {0, 2}, .head_rows = {}})));
  other.OpenResults(6);
  frame.mutable_step()->set_epoch(6);
  transport::PackActivations(MakeRows(20, kDModel, 1), frame);
  ASSERT_OK(other.Send(frame));
  ASSERT_OK_AND_ASSIGN(result, other.NextResult());
  EXPECT_FALSE(ErrorOf(result).ok());
}

// Frames beyond the window, and before there is any.
TEST_F(WorkerStepsTest, WhoIgnoresCreditsIsCutOff) {
  worker_ = Start(Options());
  driver_ = std::make_unique<WorkerDriver>(dialer_.get(), *worker_);
  EXPECT_THAT(driver_->SendWithoutCredit(), StatusIs(absl::StatusCode::kResourceExhausted));
}

TEST_F(WorkerStepsTest, AFrameLargerThanThePlanAllowsEndsItsStream) {
  StartWhole();
  proto::StepFrame frame;
  *frame.mutable_step() = transport::ToProto(Steps(5)[0]);
  frame.set_target(proto::FRAME_TARGET_LAYERS);
  transport::PackActivations(MakeRows(33, kDModel, 1), frame);
  ASSERT_OK(driver_->Send(frame));
  EXPECT_THAT(driver_->WaitForBrokenEdge(), StatusIs(absl::StatusCode::kInvalidArgument));
  driver_->CloseEdge();
  ExpectRightAnswer(0, 1);
}

TEST_F(WorkerStepsTest, ConnectionsAreCounted) {
  StartWhole();
  ExpectRightAnswer(0, 1);  // on an edge of its own, from before
  WorkerDriver other(dialer_.get(), *worker_);
  absl::Status last;
  int opened = 0;
  for (; last.ok() && opened < 1000; ++opened) last = other.OpenEdge().status();
  EXPECT_GT(opened, 100);
  EXPECT_THAT(last, StatusIs(absl::StatusCode::kResourceExhausted));
  other.CloseEdges();
  ExpectRightAnswer(1, 2);
}

TEST_F(WorkerStepsTest, DamagedFramesNeverBringItDown) {
  StartWhole();
  proto::StepFrame good;
  *good.mutable_step() = transport::ToProto(Steps(5)[0]);
  good.set_target(proto::FRAME_TARGET_LAYERS);
  transport::PackActivations(MakeRows(20, kDModel, 1), good);
  // Without the activations, so that damage hits what has a meaning.
  const std::string activations = good.activations();
  good.clear_activations();
  const std::string bytes = good.SerializeAsString();
  std::mt19937 random(20240607);
  uint64_t number = 0;
  for (int i = 0; i < 900; ++i) {
    std::string damaged = bytes;
    for (int k = 0; k <= i % 4; ++k)
      damaged[random() % damaged.size()] = static_cast<char>(random());
    proto::StepFrame frame;
    if (!frame.ParseFromString(damaged)) continue;
    frame.mutable_step()->set_epoch(5);
    frame.mutable_step()->set_number(++number);
    frame.set_activations(activations);
    ASSERT_OK(driver_->Send(std::move(frame)));
  }
  ASSERT_GT(number, 100u);
  // Whatever state that left: a new plan begins afresh.
  driver_ = std::make_unique<WorkerDriver>(dialer_.get(), *worker_);
  ASSERT_OK(driver_->Load(OrderWhole(6)));
  driver_->OpenResults(6);
  ASSERT_OK(driver_->SendStep(MakeStep(6, 1, 0, 20), MakeRows(20, kDModel, 1)));
  ASSERT_OK_AND_ASSIGN(const proto::StepResult result, driver_->NextResult());
  EXPECT_OK(ErrorOf(result));
}

}  // namespace
}  // namespace renga::worker

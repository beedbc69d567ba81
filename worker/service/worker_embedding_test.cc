// Tokens through a worker that holds the embedding: the bits of rows that were sent, and bad tokens
// bring nothing down.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <memory>
#include <vector>

#include "base/testing/status_matchers.h"
#include "model/embedding.h"
#include "transport/wire.h"
#include "worker/service/testing/test_setup.h"
#include "worker/service/testing/worker_driver.h"
#include "worker/service/testing/worker_fixture.h"

namespace renga::worker {
namespace {

using ::renga::testing::StatusIs;
using testing::ErrorOf;
using ::testing::HasSubstr;
using testing::MakeStep;
using testing::SmallModel;
using testing::WorkerDriver;

class WorkerEmbeddingTest : public testing::WorkerTest {};

// The embedding on the worker with the layers, or on another one; the rows are those that the
// coordinator would have sent.
TEST_F(WorkerEmbeddingTest, TheEmbeddingOnAnyWorkerGivesTheSameBits) {
  const int64_t vocabulary = SmallModel().model().config.vocab_size;
  ASSERT_OK_AND_ASSIGN(const auto table, model::EmbeddingTable::Create(
                                             SmallModel().file(), SmallModel().model().config));
  const model::Step step = MakeStep(9, 1, 0, 20);
  std::vector<model::TokenId> tokens;
  for (int32_t i = 0; i < step.token_count(); ++i)
    tokens.push_back(static_cast<int32_t>((i * 977) % vocabulary));
  ASSERT_OK_AND_ASSIGN(const std::vector<float> rows, table.Rows(tokens));
  for (const base::DataType type : {base::DataType::kF32, base::DataType::kQ8_0}) {
    std::vector<std::vector<std::vector<float>>> answers;
    for (const int holder : {-1, 0, 1}) {  // -1: none, the rows are sent
      std::vector<std::unique_ptr<WorkerServer>> workers;
      std::vector<std::unique_ptr<WorkerDriver>> drivers;
      for (int i = 0; i <= std::max(holder, 0); ++i) {
        workers.push_back(Start(Options()));
        drivers.push_back(std::make_unique<WorkerDriver>(dialer_.get(), *workers[i]));
      }
      for (int i = 0; i <= std::max(holder, 0); ++i) {
        model::ShardSpec spec = i == 0 ? testing::WholeSpec(SmallModel()) : model::ShardSpec();
        spec.embedding = i == holder;
        proto::LoadRequest order =
            i == 0 ? Order(9, spec) : SmallModel().MakeRequest(9, spec, testing::SmallLimits());
        order.set_worker_index(static_cast<uint32_t>(i));
        order.set_activation_type(transport::ToProto(type));
        if (spec.embedding) {
          testing::SetPeer(0, AddressOf(*workers[0], "w-a"), *order.add_first_stage());
        }
        ASSERT_OK(drivers[i]->Load(order));
        drivers[i]->OpenResults(9);
      }
      proto::StepFrame frame;
      *frame.mutable_step() = transport::ToProto(step);
      if (holder < 0) {
        frame.set_target(proto::FRAME_TARGET_LAYERS);
        transport::PackActivations(rows, frame, type);
      } else {
        frame.set_target(proto::FRAME_TARGET_EMBEDDING);
        frame.mutable_tokens()->Add(tokens.begin(), tokens.end());
      }
      ASSERT_OK(drivers[std::max(holder, 0)]->Send(frame));
      ASSERT_OK_AND_ASSIGN(const proto::StepResult result, drivers[0]->NextResult());
      ASSERT_OK(ErrorOf(result));
      answers.push_back(testing::LogitsOf(result, vocabulary));
    }
    EXPECT_EQ(answers[1], answers[0]);
    EXPECT_EQ(answers[2], answers[0]);
  }
}

TEST_F(WorkerEmbeddingTest, BadTokensAreRefused) {
  const auto worker = Start(Options());
  WorkerDriver driver(dialer_.get(), *worker);
  model::ShardSpec spec = testing::WholeSpec(SmallModel());
  spec.embedding = true;
  proto::LoadRequest order = Order(5, spec);
  testing::SetPeer(0, AddressOf(*worker, "w-a"), *order.add_first_stage());
  ASSERT_OK(driver.Load(order));
  driver.OpenResults(5);
  const std::vector<int32_t> good(20, 1);
  std::vector<int32_t> foreign = good;
  foreign[7] = static_cast<int32_t>(SmallModel().model().config.vocab_size);
  std::vector<int32_t> negative = good;
  negative[7] = -1;
  uint64_t number = 0;
  for (const std::vector<int32_t>& tokens : {foreign, negative, {1, 2, 3}, {}}) {
    proto::StepFrame frame;
    *frame.mutable_step() = transport::ToProto(MakeStep(5, ++number, 0, 20));
    frame.set_target(proto::FRAME_TARGET_EMBEDDING);
    frame.mutable_tokens()->Add(tokens.begin(), tokens.end());
    ASSERT_OK(driver.Send(frame));
    ASSERT_OK_AND_ASSIGN(const proto::StepResult result, driver.NextResult());
    EXPECT_THAT(ErrorOf(result),
                StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("frame.tokens")));
  }
  proto::StepFrame frame;
  *frame.mutable_step() = transport::ToProto(MakeStep(5, ++number, 0, 20));
  frame.set_target(proto::FRAME_TARGET_EMBEDDING);
  frame.mutable_tokens()->Add(good.begin(), good.end());
  ASSERT_OK(driver.Send(frame));
  ASSERT_OK_AND_ASSIGN(const proto::StepResult result, driver.NextResult());
  EXPECT_OK(ErrorOf(result));
  // More than any step of the plan has.
  frame.mutable_tokens()->Resize(1 << 20, 1);
  ASSERT_OK(driver.Send(frame));
  EXPECT_THAT(driver.WaitForBrokenEdge(), StatusIs(absl::StatusCode::kInvalidArgument));
}

}  // namespace
}  // namespace renga::worker

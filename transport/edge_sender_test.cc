#include "transport/edge_sender.h"

#include <gmock/gmock.h>
#include <grpcpp/channel.h>
#include <grpcpp/create_channel.h>
#include <grpcpp/security/credentials.h>
#include <grpcpp/server.h>
#include <grpcpp/server_builder.h>
#include <grpcpp/support/channel_arguments.h>
#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <cstdint>
#include <memory>
#include <vector>

#include "absl/synchronization/mutex.h"
#include "absl/synchronization/notification.h"
#include "absl/time/time.h"
#include "base/testing/status_matchers.h"
#include "proto/worker.grpc.pb.h"

namespace renga::transport {
namespace {

using ::renga::testing::StatusIs;
using ::testing::HasSubstr;

// Takes frames and writes down their numbers; gives credits when told to.
class Receiver : public proto::Worker::CallbackService {
 public:
  class Stream : public grpc::ServerBidiReactor<proto::StepFrame, proto::StepCredit> {
   public:
    explicit Stream(Receiver* owner) : owner_(owner) { StartRead(&frame_); }
    void OnReadDone(bool ok) override {
      if (!ok) {
        End(grpc::Status::OK);
        return;
      }
      {
        absl::MutexLock lock(&owner_->mutex_);
        owner_->numbers_.push_back(frame_.step().number());
      }
      StartRead(&frame_);
    }
    void Grant(uint32_t frames) {
      credit_.set_frames(frames);
      StartWrite(&credit_);
    }
    void End(const grpc::Status& status) {
      if (!ended_.exchange(true)) Finish(status);
    }
    void OnDone() override {
      {
        absl::MutexLock lock(&owner_->mutex_);
        owner_->stream_ = nullptr;
      }
      delete this;
    }

   private:
    Receiver* const owner_;
    proto::StepFrame frame_;
    proto::StepCredit credit_;
    std::atomic<bool> ended_ = false;
  };

  grpc::ServerBidiReactor<proto::StepFrame, proto::StepCredit>* Steps(
      grpc::CallbackServerContext*) override {
    absl::MutexLock lock(&mutex_);
    return stream_ = new Stream(this);
  }

  Stream* WaitForStream() {
    absl::MutexLock lock(&mutex_);
    mutex_.Await(absl::Condition(
        +[](Receiver* r) { return r->stream_ != nullptr; }, this));
    return stream_;
  }
  // The numbers of the first `count` frames, or what came within a second.
  std::vector<uint64_t> WaitForFrames(size_t count) {
    absl::MutexLock lock(&mutex_);
    wanted_ = count;
    mutex_.AwaitWithTimeout(
        absl::Condition(
            +[](Receiver* r) { return r->numbers_.size() >= r->wanted_; }, this),
        absl::Seconds(count == 0 ? 0 : 10));
    return numbers_;
  }

 private:
  absl::Mutex mutex_;
  Stream* stream_ = nullptr;
  size_t wanted_ = 0;
  std::vector<uint64_t> numbers_;
};

class EdgeSenderTest : public ::testing::Test {
 protected:
  void SetUp() override {
    grpc::ServerBuilder builder;
    builder.RegisterService(&receiver_);
    server_ = builder.BuildAndStart();
    sender_ = std::make_unique<EdgeSender>(server_->InProcessChannel(grpc::ChannelArguments()),
                                           [this](const absl::Status& status) {
                                             reason_ = status;
                                             broken_.Notify();
                                           });
  }
  void TearDown() override {
    sender_.reset();
    server_->Shutdown(std::chrono::system_clock::now());
  }
  absl::Status Send(uint64_t number) {
    proto::StepFrame frame;
    frame.mutable_step()->set_number(number);
    frame.set_activations(std::string(1000, 'x'));
    return sender_->Send(std::move(frame));
  }

  Receiver receiver_;
  std::unique_ptr<grpc::Server> server_;
  absl::Status reason_;
  absl::Notification broken_;
  std::unique_ptr<EdgeSender> sender_;
};

TEST_F(EdgeSenderTest, FramesWaitForCreditsAndKeepTheirOrder) {
  for (uint64_t i = 1; i <= 5; ++i) ASSERT_OK(Send(i));
  Receiver::Stream* stream = receiver_.WaitForStream();
  EXPECT_TRUE(receiver_.WaitForFrames(0).empty());
  stream->Grant(2);
  EXPECT_EQ(receiver_.WaitForFrames(2), (std::vector<uint64_t>{1, 2}));
  stream->Grant(100);
  EXPECT_EQ(receiver_.WaitForFrames(5), (std::vector<uint64_t>{1, 2, 3, 4, 5}));
  for (uint64_t i = 6; i <= 40; ++i) ASSERT_OK(Send(i));
  const std::vector<uint64_t> all = receiver_.WaitForFrames(40);
  for (uint64_t i = 0; i < 40; ++i) EXPECT_EQ(all.at(i), i + 1);
}

TEST_F(EdgeSenderTest, TheQueueIsBounded) {
  absl::Status status;
  size_t sent = 0;
  while (status.ok() && sent < 10'000) {
    status = Send(++sent);
  }
  EXPECT_THAT(status, StatusIs(absl::StatusCode::kResourceExhausted));
  EXPECT_EQ(sent, EdgeSender::kMaxQueuedFrames + 1);
}

TEST_F(EdgeSenderTest, TheReceiversReasonReachesTheSender) {
  Receiver::Stream* stream = receiver_.WaitForStream();
  stream->End(grpc::Status(grpc::StatusCode::ABORTED, "an older plan"));
  broken_.WaitForNotification();
  EXPECT_THAT(reason_, StatusIs(absl::StatusCode::kAborted, HasSubstr("older plan")));
  EXPECT_THAT(Send(1), StatusIs(absl::StatusCode::kAborted, HasSubstr("older plan")));
}

TEST_F(EdgeSenderTest, AnEndWithoutReasonIsAnErrorToo) {
  receiver_.WaitForStream()->End(grpc::Status::OK);
  broken_.WaitForNotification();
  EXPECT_THAT(reason_, StatusIs(absl::StatusCode::kUnavailable));
}

TEST_F(EdgeSenderTest, ClosingIsNotABreak) {
  receiver_.WaitForStream()->Grant(1);
  ASSERT_OK(Send(1));
  sender_.reset();
  EXPECT_FALSE(broken_.HasBeenNotified());
}

TEST_F(EdgeSenderTest, AServerThatGoesAwayBreaksTheEdge) {
  receiver_.WaitForStream();
  server_->Shutdown(std::chrono::system_clock::now());
  broken_.WaitForNotification();
  EXPECT_FALSE(reason_.ok());
}

TEST(EdgeSenderDeadPeerTest, AnUnreachablePeerIsABrokenEdge) {
  absl::Notification broken;
  absl::Status reason;
  EdgeSender sender(
      grpc::CreateCustomChannel("127.0.0.1:1", grpc::InsecureChannelCredentials(), {}),
      [&](const absl::Status& status) {
        reason = status;
        broken.Notify();
      });
  broken.WaitForNotification();
  EXPECT_THAT(reason, StatusIs(absl::StatusCode::kUnavailable));
}

}  // namespace
}  // namespace renga::transport

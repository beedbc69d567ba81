#include "transport/edge_sender.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/synchronization/mutex.h"
#include "absl/synchronization/notification.h"
#include "absl/time/time.h"
#include "base/testing/status_matchers.h"
#include "transport/message_socket.h"
#include "transport/peer_listener.h"

namespace renga::transport {
namespace {

using ::renga::testing::StatusIs;
using ::testing::HasSubstr;

// A data port that takes one edge and writes down the numbers of its frames; gives credits when
// told to.
class Receiver {
 public:
  Receiver() {
    auto listener = PeerListener::Start(
        "127.0.0.1", 0, SocketCredentials::CreateInsecureLoopback(),
        [this](const PeerHello& hello, std::unique_ptr<SecureSocket> connection) {
          EXPECT_EQ(hello.purpose, PeerPurpose::kSteps);
          edge_.Accept(std::move(connection));
          connected_.Notify();
        });
    EXPECT_OK(listener);
    listener_ = *std::move(listener);
  }

  PeerAddress address() const {
    return {.address = absl::StrCat("127.0.0.1:", listener_->port()), .name = "w"};
  }
  void Grant(uint32_t frames) {
    connected_.WaitForNotification();
    proto::StepCredit credit;
    credit.set_frames(frames);
    EXPECT_OK(edge_.Send(credit));
  }
  void End(const absl::Status& why) {
    connected_.WaitForNotification();
    edge_.End(why);
  }
  // As a process that is killed.
  void Close() {
    connected_.WaitForNotification();
    edge_.Close();
  }
  // The numbers of the first `count` frames, or what came within some seconds.
  std::vector<uint64_t> WaitForFrames(size_t count) {
    absl::MutexLock lock(&mutex_);
    const auto enough = [&]()
                            ABSL_SHARED_LOCKS_REQUIRED(mutex_) { return numbers_.size() >= count; };
    mutex_.AwaitWithTimeout(absl::Condition(&enough), absl::Seconds(10));
    return numbers_;
  }

 private:
  absl::Status Take(const std::string& message) {
    proto::StepFrame frame;
    EXPECT_TRUE(frame.ParseFromString(message));
    absl::MutexLock lock(&mutex_);
    numbers_.push_back(frame.step().number());
    return absl::OkStatus();
  }

  absl::Notification connected_;
  absl::Mutex mutex_;
  std::vector<uint64_t> numbers_ ABSL_GUARDED_BY(mutex_);
  MessageSocket edge_{{.on_message = [this](std::string& message) { return Take(message); },
                       .on_end = [](const absl::Status&) {}}};
  std::unique_ptr<PeerListener> listener_;
};

class EdgeSenderTest : public ::testing::Test {
 protected:
  EdgeSenderTest() : dialer_(CreateInsecureLoopbackDialer()) { Open(receiver_.address()); }

  void Open(const PeerAddress& worker) {
    sender_ = std::make_unique<EdgeSender>(*dialer_, worker, [this](const absl::Status& status) {
      reason_ = status;
      broken_.Notify();
    });
  }
  absl::Status Send(uint64_t number) {
    proto::StepFrame frame;
    frame.mutable_step()->set_number(number);
    frame.set_activations(std::string(1000, 'x'));
    return sender_->Send(std::move(frame));
  }

  Receiver receiver_;
  const std::unique_ptr<Dialer> dialer_;
  absl::Status reason_;
  absl::Notification broken_;
  std::unique_ptr<EdgeSender> sender_;
};

TEST_F(EdgeSenderTest, FramesWaitForCreditsAndKeepTheirOrder) {
  for (uint64_t i = 1; i <= 5; ++i) ASSERT_OK(Send(i));
  EXPECT_TRUE(receiver_.WaitForFrames(0).empty());
  receiver_.Grant(2);
  EXPECT_EQ(receiver_.WaitForFrames(2), (std::vector<uint64_t>{1, 2}));
  receiver_.Grant(100);
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
  receiver_.End(absl::AbortedError("an older plan"));
  broken_.WaitForNotification();
  EXPECT_THAT(reason_, StatusIs(absl::StatusCode::kAborted, HasSubstr("older plan")));
  EXPECT_THAT(Send(1), StatusIs(absl::StatusCode::kAborted, HasSubstr("older plan")));
}

TEST_F(EdgeSenderTest, AnEndWithoutReasonIsAnErrorToo) {
  receiver_.End(absl::OkStatus());
  broken_.WaitForNotification();
  EXPECT_THAT(reason_, StatusIs(absl::StatusCode::kUnavailable));
}

TEST_F(EdgeSenderTest, ClosingIsNotABreak) {
  receiver_.Grant(1);
  ASSERT_OK(Send(1));
  sender_.reset();
  EXPECT_FALSE(broken_.HasBeenNotified());
}

TEST_F(EdgeSenderTest, AWorkerThatGoesAwayBreaksTheEdge) {
  receiver_.Close();
  broken_.WaitForNotification();
  EXPECT_THAT(reason_, StatusIs(absl::StatusCode::kUnavailable));
}

TEST(EdgeSenderDeadPeerTest, AnUnreachablePeerIsABrokenEdge) {
  const std::unique_ptr<Dialer> dialer = CreateInsecureLoopbackDialer();
  absl::Notification broken;
  absl::Status reason;
  EdgeSender sender(*dialer, {.address = "127.0.0.1:1", .name = "w"},
                    [&](const absl::Status& status) {
                      reason = status;
                      broken.Notify();
                    });
  broken.WaitForNotification();
  EXPECT_THAT(reason, StatusIs(absl::StatusCode::kUnavailable));
  EXPECT_THAT(sender.Send({}), StatusIs(absl::StatusCode::kUnavailable));
}

}  // namespace
}  // namespace renga::transport

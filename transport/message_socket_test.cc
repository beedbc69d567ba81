#include "transport/message_socket.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <cstring>
#include <functional>
#include <memory>
#include <random>
#include <span>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/synchronization/mutex.h"
#include "absl/synchronization/notification.h"
#include "absl/time/clock.h"
#include "base/status_macros.h"
#include "base/testing/status_matchers.h"
#include "proto/step.pb.h"
#include "transport/identity.h"
#include "transport/peer_listener.h"
#include "transport/tcp.h"

namespace renga::transport {
namespace {

using ::renga::testing::StatusIs;
using ::testing::HasSubstr;

// One end: what came, and how it ended.
class End {
 public:
  using OnMessage = std::function<absl::Status(MessageSocket&, const std::string&)>;
  explicit End(OnMessage on_message = nullptr)
      : on_message_(std::move(on_message)),
        socket_({.on_message = [this](std::string& message) { return Take(message); },
                 .on_end =
                     [this](const absl::Status& reason) {
                       reason_ = reason;
                       ended_.Notify();
                     }}) {}

  MessageSocket& socket() { return socket_; }
  std::vector<std::string> WaitFor(size_t count) {
    absl::MutexLock lock(&mutex_);
    const auto enough = [&]() ABSL_SHARED_LOCKS_REQUIRED(mutex_) {
      return messages_.size() >= count;
    };
    mutex_.AwaitWithTimeout(absl::Condition(&enough), absl::Seconds(20));
    return messages_;
  }
  absl::Status WaitForEnd() {
    ended_.WaitForNotification();
    return reason_;
  }
  bool over() const { return ended_.HasBeenNotified(); }

 private:
  absl::Status Take(const std::string& message) {
    if (on_message_) return on_message_(socket_, message);
    absl::MutexLock lock(&mutex_);
    messages_.push_back(message);
    return absl::OkStatus();
  }

  const OnMessage on_message_;
  absl::Mutex mutex_;
  std::vector<std::string> messages_ ABSL_GUARDED_BY(mutex_);
  absl::Status reason_;
  absl::Notification ended_;
  MessageSocket socket_;
};

// Two ends of one connection; with certificates and without.
class MessageSocketTest : public ::testing::TestWithParam<bool> {
 protected:
  void SetUp() override {
    ASSERT_OK_AND_ASSIGN(authority_, Authority::CreateEphemeral());
    Listen(CredentialsOf("w-1"));
  }
  void TearDown() override { listener_.reset(); }

  std::shared_ptr<const SocketCredentials> CredentialsOf(const std::string& name) {
    if (!GetParam()) return SocketCredentials::CreateInsecureLoopback();
    const auto credentials = SocketCredentials::CreateTls(*authority_->IssueIdentity(name));
    EXPECT_OK(credentials);
    return *credentials;
  }
  void Listen(std::shared_ptr<const SocketCredentials> credentials) {
    ASSERT_OK_AND_ASSIGN(
        listener_,
        PeerListener::Start("127.0.0.1", 0, std::move(credentials),
                            [this](const PeerHello&, std::unique_ptr<SecureSocket> connection) {
                              server_->socket().Accept(std::move(connection));
                              accepted_.Notify();
                            }));
  }
  void Connect(const std::string& name = "w-1") {
    client_->socket().Connect(
        {.address = absl::StrCat("127.0.0.1:", listener_->port()), .name = name},
        CredentialsOf("coordinator"), {.purpose = PeerPurpose::kProbe});
  }

  std::unique_ptr<Authority> authority_;
  absl::Notification accepted_;
  std::unique_ptr<End> server_ = std::make_unique<End>();
  std::unique_ptr<End> client_ = std::make_unique<End>();
  std::unique_ptr<PeerListener> listener_;  // last: its thread hands over to server_
};

TEST_P(MessageSocketTest, MessagesArriveWholeAndInOrderBothWays) {
  std::vector<std::string> sent;
  for (const size_t size : {0, 1, 7, 8, 9, 1000, 16'384, 70'000, 3'000'000, 2}) {
    sent.emplace_back(size, static_cast<char>('a' + sent.size()));
  }
  // Before the connection is there.
  for (const std::string& message : sent) ASSERT_OK(client_->socket().SendBytes(message));
  Connect();
  EXPECT_EQ(server_->WaitFor(sent.size()), sent);
  for (const std::string& message : sent) ASSERT_OK(server_->socket().SendBytes(message));
  EXPECT_EQ(client_->WaitFor(sent.size()), sent);
}

// From several threads, with answers from within the handler.
TEST_P(MessageSocketTest, ManyThreadsSendAtOnce) {
  server_ = std::make_unique<End>(
      [](MessageSocket& socket, const std::string& message) { return socket.SendBytes(message); });
  Connect();
  constexpr size_t kThreads = 4;
  constexpr size_t kEach = 200;
  std::vector<std::thread> threads;
  for (size_t t = 0; t < kThreads; ++t) {
    threads.emplace_back([&, t] {
      for (size_t i = 0; i < kEach; ++i) {
        EXPECT_OK(client_->socket().SendBytes(std::string(1 + (t * 977 + i * 131) % 5000, 'x')));
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(client_->WaitFor(kThreads * kEach).size(), kThreads * kEach);
}

// Poll and the connection's own thread read the same connection: nothing is lost or out of order.
TEST_P(MessageSocketTest, WhoPollsTakesPart) {
  Connect();
  accepted_.WaitForNotification();
  std::atomic<bool> stop = false;
  std::thread polling([&] {
    while (!stop) server_->socket().Poll();
  });
  std::vector<std::string> sent;
  for (int i = 0; i < 500; ++i) sent.push_back(absl::StrCat("message ", i));
  for (const std::string& message : sent) ASSERT_OK(client_->socket().SendBytes(message));
  EXPECT_EQ(server_->WaitFor(sent.size()), sent);
  client_->socket().Close();
  EXPECT_THAT(server_->WaitForEnd(), StatusIs(absl::StatusCode::kUnavailable));
  stop = true;
  polling.join();
}

// The thread leaves reading to a poller; what comes once that one has stopped, with a word or
// without, is read all the same.
TEST_P(MessageSocketTest, TheThreadReadsAgainWhenPollingStops) {
  Connect();
  accepted_.WaitForNotification();
  size_t sent = 0;
  const auto send = [&] {
    EXPECT_OK(client_->socket().SendBytes("message"));
    ++sent;
  };
  for (int round = 0; round < 20; ++round) {
    for (int look = 0; look < 1000; ++look) server_->socket().Poll();
    send();
    server_->socket().StopPolling();
    send();
    ASSERT_EQ(server_->WaitFor(sent).size(), sent) << "round " << round;
  }
  for (int look = 0; look < 1000; ++look) server_->socket().Poll();
  for (int i = 0; i < 5; ++i) send();
  EXPECT_EQ(server_->WaitFor(sent).size(), sent);
}

TEST_P(MessageSocketTest, ThePeersReasonArrivesAfterItsMessages) {
  Connect();
  accepted_.WaitForNotification();
  ASSERT_OK(server_->socket().SendBytes(std::string(2'000'000, 'x')));
  server_->socket().End(absl::AbortedError("an older plan"));
  EXPECT_THAT(client_->WaitForEnd(),
              StatusIs(absl::StatusCode::kAborted, HasSubstr("an older plan")));
  EXPECT_EQ(client_->WaitFor(1).size(), 1u);
  EXPECT_THAT(client_->socket().SendBytes("x"), StatusIs(absl::StatusCode::kAborted));
  EXPECT_THAT(server_->WaitForEnd(), StatusIs(absl::StatusCode::kAborted));
}

TEST_P(MessageSocketTest, WhatAHandlerRefusesEndsTheConnection) {
  server_ = std::make_unique<End>(
      [](MessageSocket&, const std::string&) { return absl::InvalidArgumentError("not a frame"); });
  Connect();
  for (int i = 0; i < 100; ++i) (void)client_->socket().SendBytes("x");
  EXPECT_THAT(client_->WaitForEnd(),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("not a frame")));
}

TEST_P(MessageSocketTest, APeerThatReadsNothingIsGivenUp) {
  absl::Notification go_on;
  server_ = std::make_unique<End>([&](MessageSocket&, const std::string&) {
    go_on.WaitForNotification();
    return absl::OkStatus();
  });
  Connect();
  const std::string large(64 << 10, 'x');
  absl::Status status;
  size_t sent = 0;
  while (status.ok() && sent < 5000) {
    status = client_->socket().SendBytes(large);
    ++sent;
  }
  EXPECT_THAT(status, StatusIs(absl::StatusCode::kResourceExhausted));
  EXPECT_GE(sent, MessageSocket::kMaxWaiting);
  go_on.Notify();
  accepted_.WaitForNotification();
  server_->socket().Close();  // before go_on goes
}

TEST_P(MessageSocketTest, ClosingIsNoEnd) {
  Connect();
  accepted_.WaitForNotification();
  client_->socket().Close();
  EXPECT_FALSE(client_->over());
  EXPECT_FALSE(client_->socket().SendBytes("x").ok());
  EXPECT_THAT(server_->WaitForEnd(), StatusIs(absl::StatusCode::kUnavailable));
}

// A destructor must not wait for a machine that is gone.
TEST_P(MessageSocketTest, ConnectingCanBeGivenUp) {
  listener_.reset();
  client_->socket().Connect({.address = "127.0.0.1:1", .name = "w-1"}, CredentialsOf("a"), {});
  const absl::Time begin = absl::Now();
  client_.reset();
  EXPECT_LT(absl::Now() - begin, absl::Seconds(4));
}

TEST_P(MessageSocketTest, AnotherPeerIsNotSpokenTo) {
  if (!GetParam()) GTEST_SKIP() << "plain connections have no names";
  Connect("w-2");
  EXPECT_THAT(client_->WaitForEnd(),
              StatusIs(absl::StatusCode::kPermissionDenied, HasSubstr("w-1 and not w-2")));
}

// One after the other they would take longer than the last one's connection may.
TEST_P(MessageSocketTest, StrangersWhoSayNothingHoldUpNobody) {
  std::vector<base::ScopedFd> strangers;
  for (int i = 0; i < 12; ++i) {
    auto stranger =
        ConnectTcp(absl::StrCat("127.0.0.1:", listener_->port()), absl::Now() + absl::Seconds(5));
    ASSERT_OK(stranger);
    strangers.push_back(*std::move(stranger));
  }
  Connect();
  ASSERT_OK(client_->socket().SendBytes("hello"));
  EXPECT_EQ(server_->WaitFor(1), std::vector<std::string>{"hello"});
  EXPECT_FALSE(client_->over());
}

INSTANTIATE_TEST_SUITE_P(PlainAndTls, MessageSocketTest, ::testing::Bool(),
                         [](const auto& how) { return how.param ? "Tls" : "Plain"; });

std::string WithHeader(uint32_t bytes, uint32_t kind, const std::string& body) {
  std::string text(8, '\0');
  std::memcpy(text.data(), &bytes, 4);
  std::memcpy(text.data() + 4, &kind, 4);
  return text + body;
}

// All messages in `bytes`, which come in pieces of random sizes; the error, if there is one.
absl::StatusOr<std::vector<std::string>> Cut(const std::string& bytes, size_t max_bytes,
                                             uint32_t seed) {
  MessageReader reader(max_bytes);
  std::mt19937 random(seed);
  std::vector<std::string> messages;
  size_t done = 0;
  while (done < bytes.size()) {
    const std::span<std::byte> wanted = reader.Wanted();
    EXPECT_FALSE(wanted.empty());
    const size_t count = std::min({wanted.size(), bytes.size() - done, size_t{1} + random() % 7});
    std::memcpy(wanted.data(), bytes.data() + done, count);
    done += count;
    RENGA_ASSIGN_OR_RETURN(const bool complete, reader.Got(count));
    if (!complete) continue;
    messages.push_back(reader.body());
    reader.Next();
  }
  return messages;
}

TEST(MessageReaderTest, PiecesBecomeMessages) {
  const std::string bytes =
      WithHeader(3, 1, "abc") + WithHeader(0, 1, "") + WithHeader(10, 1, "0123456789");
  for (uint32_t seed = 0; seed < 20; ++seed) {
    EXPECT_THAT(Cut(bytes, 10, seed),
                testing::IsOkAndHolds(std::vector<std::string>{"abc", "", "0123456789"}));
  }
}

TEST(MessageReaderTest, HeadersAreChecked) {
  EXPECT_THAT(Cut(WithHeader(11, 1, ""), 10, 1), StatusIs(absl::StatusCode::kInvalidArgument));
  EXPECT_THAT(Cut(WithHeader(0xffffffff, 1, ""), 10, 1),
              StatusIs(absl::StatusCode::kInvalidArgument));
  EXPECT_THAT(Cut(WithHeader(1, 0, "x"), 10, 1), StatusIs(absl::StatusCode::kInvalidArgument));
  EXPECT_THAT(Cut(WithHeader(1, 3, "x"), 10, 1), StatusIs(absl::StatusCode::kInvalidArgument));
}

}  // namespace
}  // namespace renga::transport

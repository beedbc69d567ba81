#include "coordinator/http/connection.h"

#include <sys/socket.h>
#include <unistd.h>

#include <string>
#include <thread>

#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "coordinator/http/testing/raw_client.h"
#include "gtest/gtest.h"

namespace renga::http {
namespace {

constexpr absl::Duration kShort = absl::Milliseconds(50);

// A connection and its client's end.
class ConnectionTest : public ::testing::Test {
 protected:
  void SetUp() override {
    int ends[2];
    ASSERT_EQ(socketpair(AF_UNIX, SOCK_STREAM, 0, ends), 0);
    server_ = ends[0];
    client_ = ends[1];
  }
  void TearDown() override { CloseClient(); }

  void CloseClient() {
    if (client_ >= 0) close(client_);
    client_ = -1;
  }
  void Send(const std::string& text) {
    ASSERT_EQ(send(client_, text.data(), text.size(), 0), static_cast<ssize_t>(text.size()));
  }
  static std::string Read(Connection& connection, size_t size) {
    std::string out(size, ' ');
    const ssize_t got = connection.read(out.data(), size);
    return got < 0 ? "error" : out.substr(0, static_cast<size_t>(got));
  }

  int server_ = -1;
  int client_ = -1;
  ConnectionLimits limits_ = {.max_request_bytes = 100,
                              .request_time = kTestPatience,
                              .write_time = kTestPatience,
                              .keep_alive_time = kTestPatience};
};

bool Never() { return false; }

TEST_F(ConnectionTest, IsCurrentOnItsThreadWhileItLives) {
  EXPECT_EQ(Connection::Current(), nullptr);
  {
    CloseClient();
    const Connection connection(server_, limits_);
    EXPECT_EQ(Connection::Current(), &connection);
    std::thread([] { EXPECT_EQ(Connection::Current(), nullptr); }).join();
  }
  EXPECT_EQ(Connection::Current(), nullptr);
}

TEST_F(ConnectionTest, EveryRequestHasALimitOfItsOwn) {
  limits_.max_request_bytes = 5;
  Connection connection(server_, limits_);
  Send("12345678");
  ASSERT_TRUE(connection.AwaitRequest(Never));
  EXPECT_EQ(Read(connection, 3), "123");
  ASSERT_TRUE(connection.AwaitRequest(Never));
  EXPECT_EQ(Read(connection, 10), "45678");
  CloseClient();
}

// What is left of it must not be taken for the next one.
TEST_F(ConnectionTest, ARequestBeyondTheLimitIsTheLast) {
  limits_.max_request_bytes = 5;
  Connection connection(server_, limits_);
  Send("12345678");
  ASSERT_TRUE(connection.AwaitRequest(Never));
  EXPECT_EQ(Read(connection, 10), "12345");
  EXPECT_EQ(Read(connection, 1), "error");
  EXPECT_FALSE(connection.AwaitRequest(Never));
  CloseClient();
}

TEST_F(ConnectionTest, ARequestThatDoesNotArriveEnds) {
  limits_.request_time = kShort;
  Connection connection(server_, limits_);
  Send("half");
  ASSERT_TRUE(connection.AwaitRequest(Never));
  EXPECT_EQ(Read(connection, 10), "half");
  EXPECT_EQ(Read(connection, 10), "error");
  EXPECT_FALSE(connection.is_readable());
  CloseClient();
}

// The time is that of the whole request: bytes that trickle in do not prolong it.
TEST_F(ConnectionTest, TricklingDoesNotHelp) {
  limits_.request_time = 4 * kShort;
  Connection connection(server_, limits_);
  Send("x");
  ASSERT_TRUE(connection.AwaitRequest(Never));
  const absl::Time begin = absl::Now();
  int reads = 0;
  while (Read(connection, 1) == "x" && reads < 90) {
    ++reads;
    absl::SleepFor(kShort / 10);
    Send("x");
  }
  EXPECT_LT(reads, 90);
  EXPECT_LT(absl::Now() - begin, kTestPatience);
  CloseClient();
}

TEST_F(ConnectionTest, IdleClientsAreLeftAfterATime) {
  limits_.keep_alive_time = kShort;
  Connection connection(server_, limits_);
  EXPECT_FALSE(connection.AwaitRequest(Never));
  CloseClient();
}

TEST_F(ConnectionTest, WaitingForARequestCanBeGivenUp) {
  Connection connection(server_, limits_);
  int asked = 0;
  EXPECT_FALSE(connection.AwaitRequest([&asked] { return ++asked == 3; }));
  EXPECT_EQ(asked, 3);
  CloseClient();
}

TEST_F(ConnectionTest, ARequestThatHasComeIsNotGivenUp) {
  Connection connection(server_, limits_);
  Send("request");
  EXPECT_TRUE(connection.AwaitRequest([] { return true; }));
  CloseClient();
}

TEST_F(ConnectionTest, NothingIsReadAfterAResponseThatEndsIt) {
  Connection connection(server_, limits_);
  Send("12");
  ASSERT_TRUE(connection.AwaitRequest(Never));
  EXPECT_EQ(Read(connection, 1), "1");
  connection.CloseAfterResponse();
  EXPECT_FALSE(connection.AwaitRequest(Never));
  CloseClient();
}

TEST_F(ConnectionTest, NoticesThatTheClientLeft) {
  Connection connection(server_, limits_);
  EXPECT_FALSE(connection.PeerGone());
  EXPECT_TRUE(connection.is_writable());
  CloseClient();
  EXPECT_TRUE(connection.PeerGone());
  EXPECT_FALSE(connection.is_writable());
  const std::string text(10, 'x');
  EXPECT_LT(connection.write(text.data(), text.size()), 0);
}

TEST_F(ConnectionTest, WritingToAClientThatDoesNotReadEnds) {
  limits_.write_time = kShort;
  Connection connection(server_, limits_);
  const std::string text(1 << 16, 'x');
  ssize_t written = 0;
  for (int i = 0; i < 1000 && written >= 0; ++i)
    written = connection.write(text.data(), text.size());
  EXPECT_LT(written, 0);
  EXPECT_FALSE(connection.is_writable());
  CloseClient();
}

// A client that is still sending gets to read the answer: its unread bytes are taken and dropped.
TEST_F(ConnectionTest, TheAnswerIsReadByAClientThatStillSends) {
  {
    Connection connection(server_, limits_);
    Send("more than anybody reads");
    const std::string text = "answer";
    ASSERT_EQ(connection.write(text.data(), text.size()), 6);
    connection.CloseAfterResponse();
    shutdown(client_, SHUT_WR);
  }
  char buffer[16];
  EXPECT_EQ(recv(client_, buffer, sizeof buffer, 0), 6);
  EXPECT_EQ(recv(client_, buffer, sizeof buffer, 0), 0);
}

}  // namespace
}  // namespace renga::http

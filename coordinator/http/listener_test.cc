#include "coordinator/http/listener.h"

#include <memory>
#include <string>
#include <vector>

#include "absl/synchronization/notification.h"
#include "absl/time/time.h"
#include "base/testing/status_matchers.h"
#include "coordinator/http/testing/raw_client.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace renga::http {
namespace {

using ::renga::testing::StatusIs;
using ::testing::HasSubstr;

constexpr const char* kGet = "GET /hello HTTP/1.1\r\nHost: test\r\n\r\n";
constexpr const char* kWait = "GET /wait HTTP/1.1\r\nHost: test\r\n\r\n";

class ListenerTest : public ::testing::Test {
 protected:
  void Start(size_t max_connections) {
    listener_ = std::make_unique<Listener>(limits_, max_connections);
    listener_->Get("/hello", [](const httplib::Request&, httplib::Response& response) {
      response.set_content("hi", "text/plain");
    });
    listener_->Get("/wait", [this](const httplib::Request&, httplib::Response& response) {
      go_on_.WaitForNotification();
      response.set_content("done", "text/plain");
    });
    listener_->Post("/hello", [](const httplib::Request& request, httplib::Response& response) {
      response.set_content(std::to_string(request.body.size()), "text/plain");
    });
    ASSERT_OK(listener_->Listen("127.0.0.1", 0));
    ASSERT_GT(listener_->port(), 0);
  }
  int port() const { return listener_->port(); }

  ConnectionLimits limits_ = {.max_request_bytes = 1000,
                              .request_time = kTestPatience,
                              .write_time = kTestPatience,
                              .keep_alive_time = kTestPatience};
  absl::Notification go_on_;
  std::unique_ptr<Listener> listener_;
};

TEST_F(ListenerTest, AConnectionTakesRequestAfterRequest) {
  Start(2);
  RawClient client(port());
  for (int i = 0; i < 20; ++i) {
    ASSERT_TRUE(client.Send(kGet));
    EXPECT_THAT(client.ReadUntil("hi"), HasSubstr("200 OK"));
  }
  ASSERT_TRUE(client.Send(std::string(kGet) + kGet));
  client.ReadUntil("hi");
  EXPECT_THAT(client.ReadUntil("hi"), HasSubstr("200 OK"));
}

TEST_F(ListenerTest, IdleConnectionsMakeRoomForNewOnes) {
  Start(2);
  std::vector<std::unique_ptr<RawClient>> clients;
  for (int i = 0; i < 6; ++i) {
    clients.push_back(std::make_unique<RawClient>(port()));
    ASSERT_TRUE(clients.back()->Send(kGet));
    EXPECT_THAT(clients.back()->ReadUntil("hi"), HasSubstr("200 OK")) << "client " << i;
  }
}

TEST_F(ListenerTest, BusyConnectionsMakeOthersWait) {
  Start(2);
  RawClient first(port());
  RawClient second(port());
  RawClient third(port());
  ASSERT_TRUE(first.Send(kWait));
  ASSERT_TRUE(second.Send(kWait));
  ASSERT_TRUE(third.Send(kGet));
  go_on_.Notify();
  EXPECT_THAT(first.ReadUntil("done"), HasSubstr("200 OK"));
  EXPECT_THAT(second.ReadUntil("done"), HasSubstr("200 OK"));
  EXPECT_THAT(third.ReadUntil("hi"), HasSubstr("200 OK"));
}

TEST_F(ListenerTest, SilentAndSlowClientsAreClosed) {
  limits_.request_time = absl::Milliseconds(100);
  limits_.keep_alive_time = absl::Milliseconds(100);
  Start(4);
  RawClient silent(port());
  RawClient half_a_line(port());
  RawClient half_a_body(port());
  ASSERT_TRUE(half_a_line.Send("GET /hel"));
  ASSERT_TRUE(half_a_body.Send("POST /hello HTTP/1.1\r\nContent-Length: 10\r\n\r\n12345"));
  EXPECT_EQ(silent.ReadToEnd(), "");
  EXPECT_TRUE(silent.closed());
  half_a_line.ReadToEnd();
  EXPECT_TRUE(half_a_line.closed());
  EXPECT_THAT(half_a_body.ReadToEnd(), HasSubstr("400"));
  EXPECT_TRUE(half_a_body.closed());
}

TEST_F(ListenerTest, ARequestWithoutEndIsCutOff) {
  Start(2);
  RawClient headers(port());
  std::string many = "GET /hello HTTP/1.1\r\n";
  for (int i = 0; i < 1000; ++i) many += "a: b\r\n";
  headers.Send(many);
  headers.ReadToEnd();
  EXPECT_TRUE(headers.closed());
  RawClient chunks(port());
  std::string body = "POST /hello HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n";
  for (int i = 0; i < 100; ++i) body += "a\r\n0123456789\r\n";
  chunks.Send(body);
  EXPECT_THAT(chunks.ReadToEnd(), HasSubstr("400"));
  EXPECT_TRUE(chunks.closed());
}

TEST_F(ListenerTest, ClosingDoesNotWaitForIdleConnections) {
  Start(2);
  RawClient client(port());
  ASSERT_TRUE(client.Send(kGet));
  client.ReadUntil("hi");
  listener_->Close();
  client.ReadToEnd();
  EXPECT_TRUE(client.closed());
}

TEST_F(ListenerTest, AddressesThatCannotBeListenedOn) {
  Start(2);
  Listener other(limits_, 2);
  EXPECT_THAT(other.Listen("127.0.0.1", port()),
              StatusIs(absl::StatusCode::kFailedPrecondition, HasSubstr("another program")));
  Listener nowhere(limits_, 2);
  EXPECT_THAT(nowhere.Listen("host.invalid", 0), StatusIs(absl::StatusCode::kInvalidArgument));
  EXPECT_THAT(nowhere.Listen("127.0.0.1", 70000), StatusIs(absl::StatusCode::kInvalidArgument));
  EXPECT_THAT(nowhere.Listen("192.0.2.1", 0), StatusIs(absl::StatusCode::kInvalidArgument));
}

}  // namespace
}  // namespace renga::http

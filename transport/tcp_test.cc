#include "transport/tcp.h"

#include <gtest/gtest.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/socket.h>

#include <string>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "base/scoped_fd.h"
#include "base/testing/status_matchers.h"

namespace renga::transport {
namespace {

std::string CongestionControlOf(int socket) {
  char name[16] = {};
  socklen_t size = sizeof(name) - 1;
  EXPECT_EQ(::getsockopt(socket, IPPROTO_TCP, TCP_CONGESTION, name, &size), 0);
  return name;
}

TEST(TcpTest, NeitherEndSpreadsItsPacketsOverTime) {
  const absl::Time soon = absl::Now() + absl::Seconds(10);
  ASSERT_OK_AND_ASSIGN(const TcpListener listener, ListenTcp("127.0.0.1", 0));
  ASSERT_OK_AND_ASSIGN(const base::ScopedFd client,
                       ConnectTcp(absl::StrCat("127.0.0.1:", listener.port), soon));
  ASSERT_TRUE(WaitForSocket(listener.socket.get(), POLLIN, soon));
  const base::ScopedFd server(::accept(listener.socket.get(), nullptr, nullptr));
  ASSERT_GE(server.get(), 0);
  EXPECT_FALSE(absl::StartsWith(CongestionControlOf(client.get()), "bbr"));
  EXPECT_FALSE(absl::StartsWith(CongestionControlOf(server.get()), "bbr"));
}

}  // namespace
}  // namespace renga::transport

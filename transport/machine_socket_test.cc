#include "transport/machine_socket.h"

#include <gtest/gtest.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <memory>
#include <string>
#include <thread>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "base/scoped_fd.h"
#include "base/testing/status_matchers.h"
#include "transport/identity.h"
#include "transport/peer_listener.h"
#include "transport/secure_socket.h"
#include "transport/tcp.h"

namespace renga::transport {
namespace {

int FamilyOf(int socket) {
  sockaddr_storage address = {};
  socklen_t size = sizeof(address);
  EXPECT_EQ(::getsockname(socket, reinterpret_cast<sockaddr*>(&address), &size), 0);
  return address.ss_family;
}

absl::Time Soon() { return absl::Now() + absl::Seconds(10); }

std::shared_ptr<const SocketCredentials> TlsCredentialsOf(const std::string& name,
                                                          const Authority& authority) {
  const auto identity = authority.IssueIdentity(name);
  EXPECT_OK(identity);
  const auto credentials = SocketCredentials::CreateTls(*identity);
  EXPECT_OK(credentials);
  return *credentials;
}

class MachineSocketTest : public ::testing::Test {
 protected:
  void SetUp() override {
    ASSERT_OK_AND_ASSIGN(port_, ListenTcp("127.0.0.1", 0));
    beside_ = ListenBeside(port_.port);
    ASSERT_GE(beside_.get(), 0);
  }

  TcpListener port_;
  base::ScopedFd beside_;
};

TEST_F(MachineSocketTest, ReachesWhoListensBesideThePort) {
  const base::ScopedFd client = ConnectBeside({.host = "127.0.0.1", .port = port_.port});
  ASSERT_GE(client.get(), 0);
  const base::ScopedFd server(::accept(beside_.get(), nullptr, nullptr));
  ASSERT_GE(server.get(), 0);
  const std::string sent = "a frame";
  ASSERT_EQ(::send(client.get(), sent.data(), sent.size(), MSG_NOSIGNAL),
            static_cast<ssize_t>(sent.size()));
  std::string got(sent.size(), 0);
  ASSERT_EQ(::recv(server.get(), got.data(), got.size(), 0), static_cast<ssize_t>(sent.size()));
  EXPECT_EQ(got, sent);
}

TEST_F(MachineSocketTest, OtherMachinesAndOtherPortsAreForTcp) {
  EXPECT_LT(ConnectBeside({.host = "192.0.2.1", .port = port_.port}).get(), 0);
  EXPECT_LT(ConnectBeside({.host = "no.such.host.invalid", .port = port_.port}).get(), 0);
  const int port = port_.port;
  beside_ = base::ScopedFd();
  EXPECT_LT(ConnectBeside({.host = "127.0.0.1", .port = port}).get(), 0);
}

TEST_F(MachineSocketTest, OneNameHasOneListener) { EXPECT_LT(ListenBeside(port_.port).get(), 0); }

TEST_F(MachineSocketTest, PeersOfOneMachineMayGoPastTcp) {
  const auto credentials = SocketCredentials::CreateInsecureLoopback();
  ASSERT_OK_AND_ASSIGN(const auto listener, PeerListener::Start("127.0.0.1", 0, credentials));
  const PeerAddress peer = {.address = absl::StrCat("127.0.0.1:", listener->port()), .name = "w-0"};
  ASSERT_OK_AND_ASSIGN(const auto past,
                       SecureSocket::Connect(peer, credentials, Soon(), Route::kPastTcp));
  EXPECT_EQ(FamilyOf(past->fd()), AF_UNIX);
  ASSERT_OK_AND_ASSIGN(const auto over, SecureSocket::Connect(peer, credentials, Soon()));
  EXPECT_EQ(FamilyOf(over->fd()), AF_INET);
}

// Anybody may take a name before the port is open.
TEST_F(MachineSocketTest, AStrangerBesideThePortIsPassedBy) {
  ASSERT_OK_AND_ASSIGN(const auto authority, Authority::CreateEphemeral());
  ASSERT_OK_AND_ASSIGN(const auto others, Authority::CreateEphemeral());
  const int port = port_.port;
  port_ = TcpListener();
  std::thread stranger([&] {
    if (!WaitForSocket(beside_.get(), POLLIN, Soon())) return;
    base::ScopedFd connection(
        ::accept4(beside_.get(), nullptr, nullptr, SOCK_NONBLOCK | SOCK_CLOEXEC));
    SecureSocket::Accept(std::move(connection), TlsCredentialsOf("w-0", *others), Soon())
        .status()
        .IgnoreError();
  });
  const auto listener = PeerListener::Start("127.0.0.1", port, TlsCredentialsOf("w-0", *authority));
  EXPECT_OK(listener);
  const auto socket =
      SecureSocket::Connect({.address = absl::StrCat("127.0.0.1:", port), .name = "w-0"},
                            TlsCredentialsOf("w-1", *authority), Soon(), Route::kPastTcp);
  EXPECT_OK(socket);
  if (socket.ok()) {
    EXPECT_EQ(FamilyOf((*socket)->fd()), AF_INET);
  }
  stranger.join();
}

}  // namespace
}  // namespace renga::transport

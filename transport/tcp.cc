#include "transport/tcp.h"

#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/socket.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <memory>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "absl/time/clock.h"
#include "base/status_macros.h"
#include "transport/dialer.h"

namespace renga::transport {
namespace {

using base::ScopedFd;

// As gRPC's connections are told: a silent peer is asked after 1 s and given up 3 s later.
constexpr int kKeepaliveIdleSeconds = 1;
constexpr int kKeepaliveProbes = 3;
constexpr unsigned kUserTimeoutMs = 4000;
constexpr int kBacklog = 64;

struct AddressesDeleter {
  void operator()(addrinfo* addresses) const { ::freeaddrinfo(addresses); }
};
using Addresses = std::unique_ptr<addrinfo, AddressesDeleter>;

absl::StatusOr<Addresses> Resolve(const std::string& host, int port, int flags) {
  addrinfo hints = {};
  hints.ai_socktype = SOCK_STREAM;
  hints.ai_flags = flags;
  addrinfo* found = nullptr;
  const int code = ::getaddrinfo(host.c_str(), absl::StrCat(port).c_str(), &hints, &found);
  if (code == 0) return Addresses(found);
  return absl::UnavailableError(absl::StrCat("cannot find ", host, ": ", ::gai_strerror(code)));
}

// BBR, some systems' default, spreads the packets of a message over a part of the round trip, and
// a step waits for the last of them. Connections that are accepted take over what the listening
// socket has. A system that refuses is slower, no worse.
void SendWithoutPacing(int socket) {
  char name[16] = {};  // TCP_CA_NAME_MAX
  socklen_t size = sizeof(name) - 1;
  if (::getsockopt(socket, IPPROTO_TCP, TCP_CONGESTION, name, &size) != 0) return;
  if (!absl::StartsWith(name, "bbr")) return;
  for (const absl::string_view other : {"cubic", "reno"}) {
    if (::setsockopt(socket, IPPROTO_TCP, TCP_CONGESTION, other.data(),
                     static_cast<socklen_t>(other.size())) == 0) {
      return;
    }
  }
}

ScopedFd NewSocket(const addrinfo& address) {
  ScopedFd socket(::socket(address.ai_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
  if (socket.get() >= 0) SendWithoutPacing(socket.get());
  return socket;
}

// A connected socket, or the errno of the failure in `error`.
ScopedFd ConnectTo(const addrinfo& address, WaitLimit limit, int& error) {
  ScopedFd socket = NewSocket(address);
  if (socket.get() < 0) {
    error = errno;
    return ScopedFd();
  }
  if (::connect(socket.get(), address.ai_addr, address.ai_addrlen) == 0) return socket;
  if (errno != EINPROGRESS) {
    error = errno;
    return ScopedFd();
  }
  if (!WaitForSocket(socket.get(), POLLOUT, limit)) {
    error = ETIMEDOUT;
    return ScopedFd();
  }
  socklen_t size = sizeof(error);
  if (::getsockopt(socket.get(), SOL_SOCKET, SO_ERROR, &error, &size) != 0) error = errno;
  return error == 0 ? std::move(socket) : ScopedFd();
}

// A listening socket, or the errno of the failure in `error`.
ScopedFd ListenAt(const addrinfo& address, int& error) {
  ScopedFd socket = NewSocket(address);
  const int yes = 1;
  if (socket.get() < 0 ||
      ::setsockopt(socket.get(), SOL_SOCKET, SO_REUSEADDR, &yes, sizeof(yes)) != 0 ||
      ::bind(socket.get(), address.ai_addr, address.ai_addrlen) != 0 ||
      ::listen(socket.get(), kBacklog) != 0) {
    error = errno;
    return ScopedFd();
  }
  return socket;
}

absl::StatusOr<int> PortOf(int socket) {
  sockaddr_storage address = {};
  socklen_t size = sizeof(address);
  if (::getsockname(socket, reinterpret_cast<sockaddr*>(&address), &size) != 0) {
    return absl::InternalError(absl::StrCat("cannot name a socket: ", std::strerror(errno)));
  }
  if (address.ss_family == AF_INET6) {
    return ntohs(reinterpret_cast<const sockaddr_in6*>(&address)->sin6_port);
  }
  return ntohs(reinterpret_cast<const sockaddr_in*>(&address)->sin_port);
}

}  // namespace

bool WaitForSocket(int socket, short events, WaitLimit limit) {
  while (true) {
    const int64_t left_ms = absl::ToInt64Milliseconds(limit.until - absl::Now());
    if (left_ms <= 0) return false;
    // poll ignores negative descriptors.
    pollfd entries[] = {{.fd = socket, .events = events, .revents = 0},
                        {.fd = limit.cancel_fd, .events = POLLIN, .revents = 0}};
    const int ready = ::poll(entries, 2, static_cast<int>(std::min<int64_t>(left_ms, 60'000)));
    if (ready > 0) return entries[1].revents == 0;
    if (ready < 0 && errno != EINTR) return false;
  }
}

bool IsThisMachine(const std::string& host) {
  const auto addresses = Resolve(host, 0, 0);
  if (!addresses.ok()) return false;
  const addrinfo& first = **addresses;
  const ScopedFd socket(::socket(first.ai_family, SOCK_DGRAM | SOCK_CLOEXEC, 0));
  return socket.get() >= 0 && ::bind(socket.get(), first.ai_addr, first.ai_addrlen) == 0;
}

void TuneTcp(int socket) {
  const int yes = 1;
  ::setsockopt(socket, IPPROTO_TCP, TCP_NODELAY, &yes, sizeof(yes));
  ::setsockopt(socket, SOL_SOCKET, SO_KEEPALIVE, &yes, sizeof(yes));
  ::setsockopt(socket, IPPROTO_TCP, TCP_KEEPIDLE, &kKeepaliveIdleSeconds, sizeof(int));
  ::setsockopt(socket, IPPROTO_TCP, TCP_KEEPINTVL, &kKeepaliveIdleSeconds, sizeof(int));
  ::setsockopt(socket, IPPROTO_TCP, TCP_KEEPCNT, &kKeepaliveProbes, sizeof(int));
  ::setsockopt(socket, IPPROTO_TCP, TCP_USER_TIMEOUT, &kUserTimeoutMs, sizeof(kUserTimeoutMs));
}

absl::StatusOr<ScopedFd> ConnectTcp(const std::string& address, WaitLimit limit) {
  RENGA_ASSIGN_OR_RETURN(const HostPort host_port, ParseHostPort(address));
  RENGA_ASSIGN_OR_RETURN(const Addresses addresses, Resolve(host_port.host, host_port.port, 0));
  int error = 0;
  for (const addrinfo* entry = addresses.get(); entry != nullptr; entry = entry->ai_next) {
    error = 0;
    ScopedFd socket = ConnectTo(*entry, limit, error);
    if (socket.get() < 0) continue;
    TuneTcp(socket.get());
    return socket;
  }
  return absl::UnavailableError(
      absl::StrCat("cannot connect to ", address, ": ", std::strerror(error)));
}

absl::StatusOr<TcpListener> ListenTcp(const std::string& host, int port) {
  RENGA_ASSIGN_OR_RETURN(const Addresses addresses, Resolve(host, port, AI_PASSIVE));
  int error = 0;
  for (const addrinfo* entry = addresses.get(); entry != nullptr; entry = entry->ai_next) {
    ScopedFd socket = ListenAt(*entry, error);
    if (socket.get() < 0) continue;
    RENGA_ASSIGN_OR_RETURN(const int bound, PortOf(socket.get()));
    return TcpListener{.socket = std::move(socket), .port = bound};
  }
  return absl::UnavailableError(
      absl::StrCat("cannot listen on ", host, " port ", port, ": ", std::strerror(error)));
}

}  // namespace renga::transport

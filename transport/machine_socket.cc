#include "transport/machine_socket.h"

#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <cstddef>
#include <string>

#include "absl/strings/str_cat.h"
#include "transport/tcp.h"

namespace renga::transport {
namespace {

using base::ScopedFd;

constexpr int kMachineBacklog = 64;
// As much as the system allows: a prompt's rows leave in one go.
constexpr int kSendBufferBytes = 4 << 20;

ScopedFd NewMachineSocket() {
  ScopedFd socket(::socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
  // Connections that are accepted take it over; without it they are slower, no worse.
  if (socket.get() >= 0) {
    ::setsockopt(socket.get(), SOL_SOCKET, SO_SNDBUF, &kSendBufferBytes, sizeof(kSendBufferBytes));
  }
  return socket;
}

// An abstract name begins with a zero and is as long as it says.
struct Name {
  explicit Name(int port) {
    const std::string text = absl::StrCat("renga data port ", port);
    address.sun_family = AF_UNIX;
    text.copy(address.sun_path + 1, sizeof(address.sun_path) - 1);
    size = static_cast<socklen_t>(offsetof(sockaddr_un, sun_path) + 1 + text.size());
  }
  const sockaddr* get() const { return reinterpret_cast<const sockaddr*>(&address); }

  sockaddr_un address = {};
  socklen_t size = 0;
};

bool IsOfThisUser(int socket) {
  ucred peer = {};
  socklen_t size = sizeof(peer);
  return ::getsockopt(socket, SOL_SOCKET, SO_PEERCRED, &peer, &size) == 0 &&
         peer.uid == ::geteuid();
}

}  // namespace

ScopedFd ListenBeside(int port) {
  ScopedFd socket = NewMachineSocket();
  const Name name(port);
  if (socket.get() < 0 || ::bind(socket.get(), name.get(), name.size) != 0 ||
      ::listen(socket.get(), kMachineBacklog) != 0) {
    return ScopedFd();
  }
  return socket;
}

ScopedFd ConnectBeside(const HostPort& to) {
  if (!IsThisMachine(to.host)) return ScopedFd();
  ScopedFd socket = NewMachineSocket();
  const Name name(to.port);
  if (socket.get() < 0 || ::connect(socket.get(), name.get(), name.size) != 0 ||
      !IsOfThisUser(socket.get())) {
    return ScopedFd();
  }
  return socket;
}

}  // namespace renga::transport

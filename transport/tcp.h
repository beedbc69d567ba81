// TCP sockets that do not block, for what does not speak gRPC.
#ifndef RENGA_TRANSPORT_TCP_H_
#define RENGA_TRANSPORT_TCP_H_

#include <string>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "base/scoped_fd.h"

namespace renga::transport {

// Until when to wait.
struct WaitLimit {
  WaitLimit(absl::Time time, int cancel = -1)  // NOLINT: a time alone is one
      : until(time), cancel_fd(cancel) {}

  absl::Time until;
  int cancel_fd;  // waiting ends at once when this can be read (an eventfd); -1: none
};

// A connection to "host:port" that does not block. kUnavailable when nothing accepts it before the
// limit, kInvalidArgument for a bad address.
absl::StatusOr<base::ScopedFd> ConnectTcp(const std::string& address, WaitLimit limit);

// Listens on `host`; 0 is any free port. kUnavailable when the port is in use or the host not here.
struct TcpListener {
  base::ScopedFd socket;
  int port = 0;
};
absl::StatusOr<TcpListener> ListenTcp(const std::string& host, int port);

// True when `host`, a name or an address, is this machine: sockets can be bound to it.
bool IsThisMachine(const std::string& host);

// Sends at once what is written, and notices within seconds a machine that is gone. For sockets
// that are not TCP's it does nothing.
void TuneTcp(int socket);

// True when one of `events` (as in poll) came within the limit.
bool WaitForSocket(int socket, short events, WaitLimit limit);

}  // namespace renga::transport

#endif  // RENGA_TRANSPORT_TCP_H_

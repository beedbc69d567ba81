// TCP sockets that do not block, for what does not speak gRPC.
#ifndef RENGA_TRANSPORT_TCP_H_
#define RENGA_TRANSPORT_TCP_H_

#include <string>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "base/scoped_fd.h"

namespace renga::transport {

// A connection to "host:port" that does not block. kUnavailable when nothing accepts it before the
// deadline, kInvalidArgument for a bad address.
absl::StatusOr<base::ScopedFd> ConnectTcp(const std::string& address, absl::Time deadline);

// Listens on `host`; 0 is any free port. kUnavailable when the port is in use or the host not here.
struct TcpListener {
  base::ScopedFd socket;
  int port = 0;
};
absl::StatusOr<TcpListener> ListenTcp(const std::string& host, int port);

// Sends at once what is written, and notices within seconds a machine that is gone.
void TuneTcp(int socket);

// True when one of `events` (as in poll) came before the deadline.
bool WaitForSocket(int socket, short events, absl::Time deadline);

}  // namespace renga::transport

#endif  // RENGA_TRANSPORT_TCP_H_

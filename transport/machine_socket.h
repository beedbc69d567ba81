// Unix sockets beside TCP ports, for processes of one machine: sending over them takes half the
// time. They are the same to whoever uses them, certificates and all, but hold some hundred KiB on
// their way, where TCP's buffers grow to what is sent.
//
// The one beside a port has an abstract name. So it ends with its last descriptor, and is seen
// where the port is seen, in one network namespace.
#ifndef RENGA_TRANSPORT_MACHINE_SOCKET_H_
#define RENGA_TRANSPORT_MACHINE_SOCKET_H_

#include "base/scoped_fd.h"
#include "transport/dialer.h"

namespace renga::transport {

// Listens, without blocking, beside a TCP port on which this process listens. Empty where the
// system has no such sockets: the port alone does.
base::ScopedFd ListenBeside(int port);

// A connection, which does not block, to what listens beside that port. Empty when the host is not
// this machine, nothing listens there, or another user does: anybody may take a name.
base::ScopedFd ConnectBeside(const HostPort& to);

}  // namespace renga::transport

#endif  // RENGA_TRANSPORT_MACHINE_SOCKET_H_

// Where other machines of the cluster connect for what cannot wait for gRPC: a worker's data port.
#ifndef RENGA_TRANSPORT_PEER_LISTENER_H_
#define RENGA_TRANSPORT_PEER_LISTENER_H_

#include <atomic>
#include <cstdint>
#include <functional>
#include <list>
#include <memory>
#include <string>
#include <thread>

#include "absl/base/thread_annotations.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "base/scoped_fd.h"
#include "transport/secure_socket.h"

namespace renga::transport {

// What a connection is for.
enum class PeerPurpose : uint32_t {
  kGroup = 1,    // a member of a tensor-parallel group
  kSteps = 2,    // an edge: frames from who connects, credits to it
  kResults = 3,  // results of an epoch, to the coordinator that connects
  kProbe = 4,    // messages that are sent back: measures the link
};

// The first bytes on a connection; little-endian.
struct PeerHello {
  uint32_t magic = 0x47474e52;  // "RNGG"
  uint32_t protocol_version = kProtocolVersion;
  uint64_t epoch = 0;  // of a group or of results
  PeerPurpose purpose = PeerPurpose::kGroup;
  uint32_t from_rank = 0;  // of a group
  uint32_t to_rank = 0;
  uint32_t unused = 0;
  friend bool operator==(const PeerHello&, const PeerHello&) = default;
};

// Thread-safe. Connections of groups wait here until a group claims them: members finish loading at
// different times.
class PeerListener {
 public:
  // Takes a connection that is not a group's. On a thread of the listener's; must not block.
  using Serve = std::function<void(const PeerHello&, std::unique_ptr<SecureSocket>)>;

  // Listens on `host` at `port`, 0 for any free one, and beside it (machine_socket.h). kUnavailable
  // when that port is in use. Without `serve`: for groups only.
  static absl::StatusOr<std::unique_ptr<PeerListener>> Start(
      const std::string& host, int port, std::shared_ptr<const SocketCredentials> credentials,
      Serve serve = nullptr);
  ~PeerListener();

  int port() const { return port_; }

  // The connection that the peer of that name opened with that hello. kUnavailable when it has not
  // come before the deadline, kCancelled once `cancelled` is set. Connections of earlier epochs are
  // dropped.
  absl::StatusOr<std::unique_ptr<SecureSocket>> Claim(const PeerHello& hello,
                                                      const std::string& peer_name,
                                                      const std::atomic<bool>& cancelled,
                                                      absl::Time deadline);

 private:
  struct Waiting {
    PeerHello hello;
    std::unique_ptr<SecureSocket> socket;
  };

  PeerListener(base::ScopedFd socket, base::ScopedFd beside, int port,
               std::shared_ptr<const SocketCredentials> credentials, Serve serve);
  // Shakes hands with one connection, on a thread of its own: a stranger who says nothing holds up
  // nobody else.
  struct Greeting {
    std::thread thread;
    std::atomic<bool> done = false;
  };

  void Listen();
  // Whether one of the two has a connection for Accept, before the interval is over.
  bool WaitForConnection() const;
  void Accept(const base::ScopedFd& listening);
  void Greet(base::ScopedFd connection);
  void Welcome(base::ScopedFd connection);

  const base::ScopedFd socket_;
  const base::ScopedFd beside_;  // may be empty
  const int port_;
  const std::shared_ptr<const SocketCredentials> credentials_;
  const Serve serve_;
  absl::Mutex mutex_;
  std::list<Waiting> waiting_ ABSL_GUARDED_BY(mutex_);  // the oldest first
  std::atomic<bool> stopped_ = false;
  std::list<Greeting> greetings_;  // thread_'s own, until it ends
  std::thread thread_;
};

}  // namespace renga::transport

#endif  // RENGA_TRANSPORT_PEER_LISTENER_H_

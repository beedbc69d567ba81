// Where the members of a tensor-parallel group that this process belongs to connect: a port of its
// own beside gRPC's.
#ifndef RENGA_TRANSPORT_GROUP_LISTENER_H_
#define RENGA_TRANSPORT_GROUP_LISTENER_H_

#include <atomic>
#include <cstdint>
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

// The first bytes on a connection between members say what it is for; little-endian.
struct GroupHello {
  uint32_t magic = 0x47474e52;  // "RNGG"
  uint32_t protocol_version = 0;
  uint64_t epoch = 0;
  uint32_t from_rank = 0;
  uint32_t to_rank = 0;
  friend bool operator==(const GroupHello&, const GroupHello&) = default;
};

// Thread-safe. Connections wait here until a group claims them: members finish loading at different
// times.
class GroupListener {
 public:
  // Listens on `host` at `port`, 0 for any free one. kUnavailable when that port is in use.
  static absl::StatusOr<std::unique_ptr<GroupListener>> Start(
      const std::string& host, int port, std::shared_ptr<const SocketCredentials> credentials);
  ~GroupListener();

  int port() const { return port_; }

  // The connection that the peer of that name opened with that hello. kUnavailable when it has not
  // come before the deadline, kCancelled once `cancelled` is set. Connections of earlier epochs are
  // dropped.
  absl::StatusOr<std::unique_ptr<SecureSocket>> Claim(const GroupHello& hello,
                                                      const std::string& peer_name,
                                                      const std::atomic<bool>& cancelled,
                                                      absl::Time deadline);

 private:
  struct Waiting {
    GroupHello hello;
    std::unique_ptr<SecureSocket> socket;
  };

  GroupListener(base::ScopedFd socket, int port,
                std::shared_ptr<const SocketCredentials> credentials);
  void Listen();
  void Welcome(base::ScopedFd connection);

  const base::ScopedFd socket_;
  const int port_;
  const std::shared_ptr<const SocketCredentials> credentials_;
  absl::Mutex mutex_;
  std::list<Waiting> waiting_ ABSL_GUARDED_BY(mutex_);  // the oldest first
  std::atomic<bool> stopped_ = false;
  std::thread thread_;
};

}  // namespace renga::transport

#endif  // RENGA_TRANSPORT_GROUP_LISTENER_H_

// What comes in at a worker's data port: edges with frames, the coordinator that wants results,
// and peers that measure their link.
#ifndef RENGA_WORKER_SERVICE_DATA_PORT_H_
#define RENGA_WORKER_SERVICE_DATA_PORT_H_

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "transport/peer_identity.h"
#include "transport/peer_listener.h"
#include "transport/secure_socket.h"
#include "worker/service/shard_host.h"

namespace renga::worker {

// Thread-safe.
class DataPort {
 public:
  // Connections at one time, with room for those of former plans that are about to end.
  static constexpr size_t kMaxConnections = 256;

  explicit DataPort(transport::PeerPolicy policy) : policy_(policy) {}
  // Waits until no connection uses the host any more.
  ~DataPort();
  DataPort(const DataPort&) = delete;
  DataPort& operator=(const DataPort&) = delete;

  // Connections are refused before; `host` outlives the port.
  void SetHost(ShardHost* host);
  // For transport::PeerListener. Results are the coordinator's alone, the rest is any member's.
  void Serve(const transport::PeerHello& hello, std::unique_ptr<transport::SecureSocket> socket);
  // A plan is loaded: edges that have no credits yet get these.
  void GrantWindows(uint32_t window);
  // Looks for frames that have come, on the calling thread. Edges leave reading to it until
  // StopPolling (transport::MessageSocket::Poll).
  void Poll();
  void StopPolling();
  // Ends all connections; later ones are refused.
  void Close();

 private:
  class Connection;
  class Edge;
  class Results;
  class Echo;
  class Refusal;

  std::shared_ptr<Connection> Open(const transport::PeerHello& hello, const std::string& peer_name)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // Takes out those that have ended.
  std::vector<std::shared_ptr<Connection>> TakeOver() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  const transport::PeerPolicy policy_;
  absl::Mutex mutex_;
  ShardHost* host_ ABSL_GUARDED_BY(mutex_) = nullptr;
  bool closed_ ABSL_GUARDED_BY(mutex_) = false;
  std::vector<std::shared_ptr<Connection>> connections_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace renga::worker

#endif  // RENGA_WORKER_SERVICE_DATA_PORT_H_

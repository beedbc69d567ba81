// Channels to peers, and the numbers every channel is set up with, stated in one place.
#ifndef RENGA_TRANSPORT_DIALER_H_
#define RENGA_TRANSPORT_DIALER_H_

#include <cstdint>
#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "transport/identity.h"
#include "transport/local_worker.h"

namespace grpc {
class Channel;
class Server;
class ServerBuilder;
class ServerCredentials;
}  // namespace grpc

namespace renga::transport {

class SocketCredentials;

// Raised whenever a message changes its meaning.
inline constexpr uint32_t kProtocolVersion = 9;
absl::string_view BuildVersion();

// Pieces of tensors as shipped, hashed and cached.
inline constexpr int64_t kPieceBytes = int64_t{1} << 20;
// The largest message either side accepts on control and shard channels.
inline constexpr int kMaxControlMessageBytes = 64 << 20;
// And on connections to a data port.
inline constexpr int kMaxMessageBytes = 64 << 20;
// Frames in flight per edge.
inline constexpr uint32_t kEdgeWindowFrames = 16;

// What a channel is for. Each purpose has connections of its own, so that none waits behind
// another.
enum class ChannelPurpose { kControl, kShards };

// Who to reach: an address and the name the peer's certificate must carry.
struct PeerAddress {
  std::string address;  // "host:port", "[::1]:port", or "inproc:NAME"
  std::string name;     // worker id or kCoordinatorName
};

// Makes channels, and knows what other connections show to peers. Thread-safe.
class Dialer {
 public:
  virtual ~Dialer() = default;
  virtual std::shared_ptr<grpc::Channel> Dial(const PeerAddress& peer, ChannelPurpose purpose) = 0;
  // For connections to data ports. kFailedPrecondition before this process has a certificate.
  virtual absl::StatusOr<std::shared_ptr<const SocketCredentials>> socket_credentials() const = 0;
  // For steps to a worker of this process, which need no channel; null for any other peer.
  virtual std::shared_ptr<LocalWorker> FindLocal(const PeerAddress&) { return nullptr; }
};

// Mutual TLS with `identity`.
std::unique_ptr<Dialer> CreateTlsDialer(Identity identity);
// Plain text, loopback addresses only: any other address gives a channel that fails every call.
std::unique_ptr<Dialer> CreateInsecureLoopbackDialer();
// TLS to the coordinator before this process has a certificate, for Enroll only.
std::unique_ptr<Dialer> CreateEnrollDialer(const std::string& authority_pem);

// Servers inside this process, reached as "inproc:NAME"; other addresses go to `next` (may be
// null). Lets one process be coordinator and worker over the same code path.
class InProcessDialer : public Dialer {
 public:
  explicit InProcessDialer(std::unique_ptr<Dialer> next);
  ~InProcessDialer() override;
  // `server` must outlive every channel made. `worker`: what it is beside a server; null: no
  // worker.
  void Register(const std::string& name, grpc::Server* server,
                std::shared_ptr<LocalWorker> worker = nullptr);
  std::shared_ptr<grpc::Channel> Dial(const PeerAddress& peer, ChannelPurpose purpose) override;
  // Of `next`; without one, of loopback.
  absl::StatusOr<std::shared_ptr<const SocketCredentials>> socket_credentials() const override;
  std::shared_ptr<LocalWorker> FindLocal(const PeerAddress& peer) override;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

// Server side. `require_client_certificate` is false only for the coordinator, which enrols
// strangers; its other calls check RequirePeer.
std::shared_ptr<grpc::ServerCredentials> TlsServerCredentials(const Identity& identity,
                                                              bool require_client_certificate);
std::shared_ptr<grpc::ServerCredentials> InsecureServerCredentialsForLoopback();

// Message sizes, keep-alive (a dead peer is noticed within 5 s), flow control, no port sharing.
void ConfigureServer(grpc::ServerBuilder& builder);

// "host:port" split and checked; IPv6 in brackets. kInvalidArgument.
struct HostPort {
  std::string host;
  int port = 0;
};
absl::StatusOr<HostPort> ParseHostPort(absl::string_view text);
bool IsLoopbackHost(absl::string_view host);

}  // namespace renga::transport

#endif  // RENGA_TRANSPORT_DIALER_H_

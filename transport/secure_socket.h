// A connection to a peer of this cluster for small messages that cannot wait for gRPC: mutual TLS
// over TCP with the same certificates, or plain text on loopback where gRPC is plain text too.
#ifndef RENGA_TRANSPORT_SECURE_SOCKET_H_
#define RENGA_TRANSPORT_SECURE_SOCKET_H_

#include <cstddef>
#include <memory>
#include <span>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "base/scoped_fd.h"
#include "transport/dialer.h"
#include "transport/identity.h"
#include "transport/tcp.h"

namespace renga::transport {

// What sockets show and demand: this process's certificate, and one of the same authority from the
// peer. Immutable, safe from any thread.
class SocketCredentials {
 public:
  // kInvalidArgument or kPermissionDenied for an identity that is damaged or does not fit together.
  static absl::StatusOr<std::shared_ptr<const SocketCredentials>> CreateTls(
      const Identity& identity);
  // No certificates: loopback addresses only.
  static std::shared_ptr<const SocketCredentials> CreateInsecureLoopback();

  ~SocketCredentials();
  SocketCredentials(const SocketCredentials&) = delete;
  SocketCredentials& operator=(const SocketCredentials&) = delete;
  bool secure() const { return context_ != nullptr; }

 private:
  friend class SecureSocket;
  SocketCredentials() = default;
  void* context_ = nullptr;  // SSL_CTX
};

// Past TCP (machine_socket.h) a process of the same machine is reached sooner, but less can be on
// its way: whoever sends much to a peer that does not read yet wants TCP, whose buffers grow.
enum class Route { kTcp, kPastTcp };

// What TLS writes to and reads from.
struct TlsPipe {
  int fd = -1;
  bool more_follows = false;  // after what is written next, at once
};

// Used by one thread at a time; Cancel by any. Never blocks after it is made.
class SecureSocket {
 public:
  // Connects and checks that the peer is who `peer` names.
  // kUnavailable when nobody answers before the limit, kPermissionDenied for another peer or one
  // without a certificate.
  static absl::StatusOr<std::unique_ptr<SecureSocket>> Connect(
      const PeerAddress& peer, const std::shared_ptr<const SocketCredentials>& credentials,
      WaitLimit limit, Route route = Route::kTcp);
  // The same for a connection that was accepted; any member of the cluster may be at its other end.
  static absl::StatusOr<std::unique_ptr<SecureSocket>> Accept(
      base::ScopedFd socket, const std::shared_ptr<const SocketCredentials>& credentials,
      WaitLimit limit);
  ~SecureSocket();

  // The name in the peer's certificate; "" on a plain connection.
  const std::string& peer_name() const { return peer_name_; }

  // Moves what can be moved now: bytes moved, 0 when the caller has to wait for wanted_events().
  // kUnavailable when the connection has ended, kCancelled after Cancel.
  absl::StatusOr<size_t> TryWrite(std::span<const std::byte> bytes);
  absl::StatusOr<size_t> TryRead(std::span<std::byte> bytes);

  int fd() const { return socket_.get(); }
  // What poll should wait for after TryWrite or TryRead gave 0.
  short write_wants() const { return write_wants_; }
  short read_wants() const { return read_wants_; }

  // All of it, waiting until the limit.
  absl::Status WriteAll(std::span<const std::byte> bytes, WaitLimit limit);
  absl::Status ReadAll(std::span<std::byte> bytes, WaitLimit limit);

  // Nothing more is written; the peer reads what was, then an end.
  void FinishWriting();
  // Ends the connection for both sides.
  void Cancel();

 private:
  SecureSocket(base::ScopedFd socket, std::shared_ptr<const SocketCredentials> credentials);
  // Who has connected, as Connect says.
  static absl::StatusOr<std::unique_ptr<SecureSocket>> Prove(
      base::ScopedFd fd, const PeerAddress& peer,
      const std::shared_ptr<const SocketCredentials>& credentials, WaitLimit limit);
  absl::Status Handshake(bool accepting, WaitLimit limit);
  absl::StatusOr<size_t> Judge(int result, short& wants);

  const base::ScopedFd socket_;
  const std::shared_ptr<const SocketCredentials> credentials_;
  TlsPipe pipe_;
  void* ssl_ = nullptr;  // SSL; null: plain
  std::string peer_name_;
  short write_wants_ = 0;
  short read_wants_ = 0;
};

}  // namespace renga::transport

#endif  // RENGA_TRANSPORT_SECURE_SOCKET_H_

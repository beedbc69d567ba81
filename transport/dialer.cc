#include "transport/dialer.h"

#include <grpcpp/create_channel.h>
#include <grpcpp/security/credentials.h>
#include <grpcpp/security/server_credentials.h>
#include <grpcpp/server.h>
#include <grpcpp/server_builder.h>
#include <grpcpp/support/channel_arguments.h>

#include <algorithm>
#include <string>
#include <utility>

#include "absl/base/thread_annotations.h"
#include "absl/container/flat_hash_map.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "absl/synchronization/mutex.h"
#include "transport/secure_socket.h"

namespace renga::transport {
namespace {

constexpr absl::string_view kInProcessPrefix = "inproc:";

// A silent peer is pinged after 1 s and given up 3 s later.
constexpr int kKeepaliveTimeMs = 1000;
constexpr int kKeepaliveTimeoutMs = 3000;
// Servers bear pings a good deal more often than peers send them.
constexpr int kMinPingIntervalMs = 200;
constexpr int kConnectTimeoutMs = 3000;
constexpr int kInitialBackoffMs = 100;
constexpr int kMaxBackoffMs = 1000;
// A piece of a shard and its header travel as few HTTP/2 frames.
constexpr int kHttp2FrameBytes = 4 << 20;
// What a peer may send on a stream before anybody reads: a few pieces; what is read ahead counts
// against the memory the worker offered. A fixed number, because probing the bandwidth would send
// pings in the middle of steps.
constexpr int kWindowBytes = 4 << 20;

// What both ends set. `Arguments` is grpc::ChannelArguments or ServerBuilder behind SetInt.
template <typename SetInt>
void SetCommonArguments(const SetInt& set) {
  set(GRPC_ARG_KEEPALIVE_TIME_MS, kKeepaliveTimeMs);
  set(GRPC_ARG_KEEPALIVE_TIMEOUT_MS, kKeepaliveTimeoutMs);
  set(GRPC_ARG_KEEPALIVE_PERMIT_WITHOUT_CALLS, 1);
  set(GRPC_ARG_HTTP2_MAX_PINGS_WITHOUT_DATA, 0);  // no limit
  set(GRPC_ARG_HTTP2_MAX_FRAME_SIZE, kHttp2FrameBytes);
  set(GRPC_ARG_HTTP2_BDP_PROBE, 0);
  set(GRPC_ARG_HTTP2_STREAM_LOOKAHEAD_BYTES, kWindowBytes);
}

grpc::ChannelArguments ClientArguments() {
  grpc::ChannelArguments arguments;
  SetCommonArguments([&arguments](const char* name, int value) { arguments.SetInt(name, value); });
  arguments.SetMaxReceiveMessageSize(kMaxControlMessageBytes);
  arguments.SetMaxSendMessageSize(kMaxControlMessageBytes);
  // Otherwise channels to one address would share a connection whatever their purpose.
  arguments.SetInt(GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL, 1);
  // Retrying is ours: steps must not be sent twice, and gRPC would keep a copy of every message.
  arguments.SetInt(GRPC_ARG_ENABLE_RETRIES, 0);
  arguments.SetInt(GRPC_ARG_MIN_RECONNECT_BACKOFF_MS, kConnectTimeoutMs);
  arguments.SetInt(GRPC_ARG_INITIAL_RECONNECT_BACKOFF_MS, kInitialBackoffMs);
  arguments.SetInt(GRPC_ARG_MAX_RECONNECT_BACKOFF_MS, kMaxBackoffMs);
  // Peers are on the LAN: no proxies and no settings from DNS.
  arguments.SetInt(GRPC_ARG_ENABLE_HTTP_PROXY, 0);
  arguments.SetInt(GRPC_ARG_SERVICE_CONFIG_DISABLE_RESOLUTION, 1);
  return arguments;
}

// Fails every call at once with kInvalidArgument.
std::shared_ptr<grpc::Channel> DeadChannel() {
  return grpc::CreateCustomChannel("", nullptr, grpc::ChannelArguments());
}

class TlsDialer : public Dialer {
 public:
  // `fixed_name`: what every peer must be called, or empty for PeerAddress::name.
  TlsDialer(const grpc::SslCredentialsOptions& options, std::string fixed_name,
            absl::StatusOr<std::shared_ptr<const SocketCredentials>> socket_credentials)
      : credentials_(grpc::SslCredentials(options)),
        fixed_name_(std::move(fixed_name)),
        socket_credentials_(std::move(socket_credentials)) {}

  std::shared_ptr<grpc::Channel> Dial(const PeerAddress& peer, ChannelPurpose) override {
    const std::string& name = fixed_name_.empty() ? peer.name : fixed_name_;
    // Without a name to insist on, gRPC would compare the certificate with the address.
    if (!IsValidPeerName(name) || !ParseHostPort(peer.address).ok()) return DeadChannel();
    grpc::ChannelArguments arguments = ClientArguments();
    arguments.SetSslTargetNameOverride(name);
    return grpc::CreateCustomChannel(peer.address, credentials_, arguments);
  }
  absl::StatusOr<std::shared_ptr<const SocketCredentials>> socket_credentials() const override {
    return socket_credentials_;
  }

 private:
  const std::shared_ptr<grpc::ChannelCredentials> credentials_;
  const std::string fixed_name_;
  const absl::StatusOr<std::shared_ptr<const SocketCredentials>> socket_credentials_;
};

class InsecureLoopbackDialer : public Dialer {
 public:
  std::shared_ptr<grpc::Channel> Dial(const PeerAddress& peer, ChannelPurpose) override {
    const auto host_port = ParseHostPort(peer.address);
    if (!host_port.ok() || !IsLoopbackHost(host_port->host)) return DeadChannel();
    return grpc::CreateCustomChannel(peer.address, grpc::InsecureChannelCredentials(),
                                     ClientArguments());
  }
  absl::StatusOr<std::shared_ptr<const SocketCredentials>> socket_credentials() const override {
    return SocketCredentials::CreateInsecureLoopback();
  }
};

// A server sends the authority along: a stranger checks its fingerprint before enrolling.
std::string Chain(const Identity& identity) {
  return absl::StrCat(identity.certificate_pem, identity.authority_pem);
}

}  // namespace

absl::string_view BuildVersion() { return "0.1.0"; }

std::unique_ptr<Dialer> CreateTlsDialer(Identity identity) {
  grpc::SslCredentialsOptions options;
  options.pem_root_certs = identity.authority_pem;
  options.pem_private_key = identity.private_key_pem;
  options.pem_cert_chain = Chain(identity);
  return std::make_unique<TlsDialer>(options, "", SocketCredentials::CreateTls(identity));
}

std::unique_ptr<Dialer> CreateInsecureLoopbackDialer() {
  return std::make_unique<InsecureLoopbackDialer>();
}

std::unique_ptr<Dialer> CreateEnrollDialer(const std::string& authority_pem) {
  grpc::SslCredentialsOptions options;
  options.pem_root_certs = authority_pem;
  return std::make_unique<TlsDialer>(
      options, std::string(kCoordinatorName),
      absl::FailedPreconditionError("this process has no certificate yet"));
}

struct InProcessDialer::Impl {
  struct Peer {
    grpc::Server* server = nullptr;
    std::shared_ptr<LocalWorker> worker;
  };

  std::unique_ptr<Dialer> next;
  absl::Mutex mutex;
  absl::flat_hash_map<std::string, Peer> peers ABSL_GUARDED_BY(mutex);
};

InProcessDialer::InProcessDialer(std::unique_ptr<Dialer> next) : impl_(std::make_unique<Impl>()) {
  impl_->next = std::move(next);
}

InProcessDialer::~InProcessDialer() = default;

void InProcessDialer::Register(const std::string& name, grpc::Server* server,
                               std::shared_ptr<LocalWorker> worker) {
  absl::MutexLock lock(&impl_->mutex);
  impl_->peers[name] = {.server = server, .worker = std::move(worker)};
}

absl::StatusOr<std::shared_ptr<const SocketCredentials>> InProcessDialer::socket_credentials()
    const {
  if (impl_->next != nullptr) return impl_->next->socket_credentials();
  return SocketCredentials::CreateInsecureLoopback();
}

std::shared_ptr<LocalWorker> InProcessDialer::FindLocal(const PeerAddress& peer) {
  absl::string_view name = peer.address;
  if (!absl::ConsumePrefix(&name, kInProcessPrefix)) return nullptr;
  absl::MutexLock lock(&impl_->mutex);
  const auto found = impl_->peers.find(name);
  return found == impl_->peers.end() ? nullptr : found->second.worker;
}

std::shared_ptr<grpc::Channel> InProcessDialer::Dial(const PeerAddress& peer,
                                                     ChannelPurpose purpose) {
  absl::string_view name = peer.address;
  if (!absl::ConsumePrefix(&name, kInProcessPrefix)) {
    return impl_->next != nullptr ? impl_->next->Dial(peer, purpose) : DeadChannel();
  }
  absl::MutexLock lock(&impl_->mutex);
  const auto found = impl_->peers.find(name);
  if (found == impl_->peers.end()) return DeadChannel();
  grpc::ChannelArguments arguments;
  arguments.SetMaxReceiveMessageSize(kMaxControlMessageBytes);
  arguments.SetMaxSendMessageSize(kMaxControlMessageBytes);
  return found->second.server->InProcessChannel(arguments);
}

std::shared_ptr<grpc::ServerCredentials> TlsServerCredentials(const Identity& identity,
                                                              bool require_client_certificate) {
  grpc::SslServerCredentialsOptions options(
      require_client_certificate ? GRPC_SSL_REQUEST_AND_REQUIRE_CLIENT_CERTIFICATE_AND_VERIFY
                                 : GRPC_SSL_REQUEST_CLIENT_CERTIFICATE_AND_VERIFY);
  options.pem_root_certs = identity.authority_pem;
  options.pem_key_cert_pairs.push_back({identity.private_key_pem, Chain(identity)});
  return grpc::SslServerCredentials(options);
}

std::shared_ptr<grpc::ServerCredentials> InsecureServerCredentialsForLoopback() {
  return grpc::InsecureServerCredentials();
}

void ConfigureServer(grpc::ServerBuilder& builder) {
  SetCommonArguments(
      [&builder](const char* name, int value) { builder.AddChannelArgument(name, value); });
  builder.AddChannelArgument(GRPC_ARG_HTTP2_MIN_RECV_PING_INTERVAL_WITHOUT_DATA_MS,
                             kMinPingIntervalMs);
  builder.AddChannelArgument(GRPC_ARG_HTTP2_MAX_PING_STRIKES, 0);  // never hang up over pings
  // A port that is in use must be an error, not shared.
  builder.AddChannelArgument(GRPC_ARG_ALLOW_REUSEPORT, 0);
  builder.SetMaxReceiveMessageSize(kMaxControlMessageBytes);
  builder.SetMaxSendMessageSize(kMaxControlMessageBytes);
}

}  // namespace renga::transport

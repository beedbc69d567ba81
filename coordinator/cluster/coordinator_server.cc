#include "coordinator/cluster/coordinator_server.h"

#include <grpcpp/security/server_credentials.h>
#include <grpcpp/server.h>
#include <grpcpp/server_builder.h>
#include <netdb.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <cstring>
#include <utility>

#include "absl/memory/memory.h"
#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "coordinator/cluster/cluster_service.h"
#include "coordinator/cluster/model_pieces.h"
#include "transport/dialer.h"
#include "transport/peer_identity.h"

namespace renga::cluster {
namespace {

absl::Status BindError(int error, const std::string& address) {
  switch (error) {
    case EADDRINUSE:
      return absl::AlreadyExistsError(absl::StrCat("another program already listens at ", address,
                                                   ": end it or choose another port"));
    case EACCES:
      return absl::PermissionDeniedError(absl::StrCat("this user may not listen at ", address));
    default:
      return absl::UnavailableError(
          absl::StrCat("cannot listen at ", address, ": ", std::strerror(error)));
  }
}

// gRPC says only that listening failed, so a socket of our own finds out first whether and why.
absl::Status TryListening(const std::string& address, const transport::HostPort& host_port) {
  addrinfo hints = {};
  hints.ai_socktype = SOCK_STREAM;
  hints.ai_flags = AI_PASSIVE;
  addrinfo* found = nullptr;
  const std::string port = absl::StrCat(host_port.port);
  if (::getaddrinfo(host_port.host.c_str(), port.c_str(), &hints, &found) != 0) {
    return absl::UnavailableError(
        absl::StrCat("cannot listen at ", address, ": the host is not known"));
  }
  // A name may stand for addresses that this machine lacks (IPv6 is off); one is enough.
  bool any = false;
  int error = 0;
  for (const addrinfo* entry = found; entry != nullptr; entry = entry->ai_next) {
    const int fd = ::socket(entry->ai_family, entry->ai_socktype, entry->ai_protocol);
    if (fd < 0) continue;  // an address family this machine lacks
    const int on = 1;
    ::setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    // Listening too: two sockets may be bound to one port as long as neither listens.
    const bool ok = ::bind(fd, entry->ai_addr, entry->ai_addrlen) == 0 && ::listen(fd, 1) == 0;
    if (!ok) error = errno;
    ::close(fd);
    any = any || ok;
    if (error == EADDRINUSE || error == EACCES) break;
  }
  ::freeaddrinfo(found);
  if (error == EADDRINUSE || error == EACCES || !any) return BindError(error, address);
  return absl::OkStatus();
}

absl::Status CheckAddress(const CoordinatorServer::Options& options) {
  RENGA_ASSIGN_OR_RETURN(const transport::HostPort host_port,
                         transport::ParseHostPort(options.address));
  if (options.authority == nullptr && !transport::IsLoopbackHost(host_port.host)) {
    return absl::InvalidArgumentError(absl::StrCat(
        "without certificates the coordinator listens on loopback only, not at ", options.address));
  }
  return TryListening(options.address, host_port);
}

absl::StatusOr<std::shared_ptr<grpc::ServerCredentials>> MakeCredentials(
    const transport::Authority* authority) {
  if (authority == nullptr) return transport::InsecureServerCredentialsForLoopback();
  RENGA_ASSIGN_OR_RETURN(const transport::Identity identity,
                         authority->IssueIdentity(transport::kCoordinatorName));
  return transport::TlsServerCredentials(identity, /*require_client_certificate=*/false);
}

}  // namespace

struct CoordinatorServer::Parts {
  Parts(const Options& options, transport::PeerPolicy policy)
      : cluster({options.membership, options.authority, policy}),
        model_pieces(options.store),
        pieces(&model_pieces, policy) {}
  ClusterService cluster;
  ModelPieces model_pieces;
  transport::PiecesService pieces;
  std::unique_ptr<grpc::Server> server;
  int port = 0;
};

absl::StatusOr<std::unique_ptr<CoordinatorServer>> CoordinatorServer::Start(
    const Options& options) {
  grpc::ServerBuilder builder;
  transport::ConfigureServer(builder);
  auto parts = std::make_unique<Parts>(options, options.authority != nullptr
                                                    ? transport::PeerPolicy::kMutualTls
                                                    : transport::PeerPolicy::kTrustEveryone);
  if (!options.address.empty()) {
    RENGA_RETURN_IF_ERROR(CheckAddress(options));
    RENGA_ASSIGN_OR_RETURN(const std::shared_ptr<grpc::ServerCredentials> credentials,
                           MakeCredentials(options.authority));
    builder.AddListeningPort(options.address, credentials, &parts->port);
  }
  builder.RegisterService(parts->cluster.service());
  builder.RegisterService(parts->pieces.service());
  parts->server = builder.BuildAndStart();
  if (parts->server == nullptr || (!options.address.empty() && parts->port == 0)) {
    return absl::UnavailableError(absl::StrCat("cannot listen at ", options.address));
  }
  return absl::WrapUnique(new CoordinatorServer(std::move(parts)));
}

CoordinatorServer::CoordinatorServer(std::unique_ptr<Parts> parts) : parts_(std::move(parts)) {}

CoordinatorServer::~CoordinatorServer() {
  parts_->cluster.SayGoodbye();
  // The goodbyes get a moment; then every call is cancelled. All reactors are gone afterwards.
  parts_->server->Shutdown(std::chrono::system_clock::now() + std::chrono::milliseconds(500));
}

int CoordinatorServer::port() const { return parts_->port; }
grpc::Server* CoordinatorServer::server() const { return parts_->server.get(); }

}  // namespace renga::cluster

// Who is calling: the name in the caller's certificate.
#ifndef RENGA_TRANSPORT_PEER_IDENTITY_H_
#define RENGA_TRANSPORT_PEER_IDENTITY_H_

#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace grpc {
class ServerContextBase;
}  // namespace grpc

namespace renga::transport {

// What a server knows of its callers; chosen once, with the server's credentials.
enum class PeerPolicy {
  kMutualTls,  // a caller is who its certificate says
  // In-process channels, and plain text on loopback (--insecure): callers have no certificate and
  // are taken for whoever the call is meant for.
  kTrustEveryone,
};

// The name in the caller's certificate. kUnauthenticated when it showed none. Under
// kTrustEveryone: empty.
absl::StatusOr<std::string> PeerName(const grpc::ServerContextBase& context, PeerPolicy policy);

// OK when the caller is `name`; kUnauthenticated without a certificate, kPermissionDenied for
// another name.
absl::Status RequirePeer(const grpc::ServerContextBase& context, PeerPolicy policy,
                         absl::string_view name);
// OK when the caller has any certificate of this cluster.
absl::Status RequireMember(const grpc::ServerContextBase& context, PeerPolicy policy);

}  // namespace renga::transport

#endif  // RENGA_TRANSPORT_PEER_IDENTITY_H_

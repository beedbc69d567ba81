#include "transport/peer_identity.h"

#include <grpc/grpc_security_constants.h>
#include <grpcpp/security/auth_context.h>
#include <grpcpp/server_context.h>

#include <vector>

#include "absl/strings/str_cat.h"

namespace renga::transport {

absl::StatusOr<std::string> PeerName(const grpc::ServerContextBase& context, PeerPolicy policy) {
  if (policy == PeerPolicy::kTrustEveryone) return std::string();
  const std::shared_ptr<const grpc::AuthContext> auth = context.auth_context();
  // The handshake has verified the certificate against the authority; certificates have one name.
  if (auth != nullptr && auth->IsPeerAuthenticated()) {
    const std::vector<grpc::string_ref> names =
        auth->FindPropertyValues(GRPC_X509_SAN_PROPERTY_NAME);
    if (names.size() == 1) return std::string(names[0].data(), names[0].size());
  }
  return absl::UnauthenticatedError(
      "no certificate of this cluster: join with the line that `renga up` prints");
}

absl::Status RequirePeer(const grpc::ServerContextBase& context, PeerPolicy policy,
                         absl::string_view name) {
  const absl::StatusOr<std::string> peer = PeerName(context, policy);
  if (!peer.ok()) return peer.status();
  if (policy == PeerPolicy::kTrustEveryone || *peer == name) return absl::OkStatus();
  return absl::PermissionDeniedError(absl::StrCat("this call is for ", name, ", not for ", *peer));
}

absl::Status RequireMember(const grpc::ServerContextBase& context, PeerPolicy policy) {
  return PeerName(context, policy).status();
}

}  // namespace renga::transport

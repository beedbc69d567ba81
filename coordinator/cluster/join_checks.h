// What a worker says of itself becomes a JoinRequest, if every number and name in it can be.
#ifndef RENGA_COORDINATOR_CLUSTER_JOIN_CHECKS_H_
#define RENGA_COORDINATOR_CLUSTER_JOIN_CHECKS_H_

#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "coordinator/cluster/membership.h"
#include "proto/cluster.pb.h"
#include "transport/peer_identity.h"

namespace renga::cluster {

// kInvalidArgument when the name is longer than 64 bytes or holds control characters.
absl::Status CheckWorkerName(absl::string_view name);

// How the caller was seen, of grpc::ServerContext::peer(): "ipv4:10.0.0.2:41234" to "10.0.0.2",
// with IPv6 addresses bare. Empty for callers without an address (in process).
std::string HostOfPeer(absl::string_view peer);

// Who says hello, and from where.
struct HelloSource {
  std::string peer;  // ServerContext::peer()
  std::string id;    // the name in the certificate; empty under kTrustEveryone
  transport::PeerPolicy policy = transport::PeerPolicy::kMutualTls;
};
// kFailedPrecondition when it speaks another protocol, with both versions; otherwise
// kInvalidArgument names what is wrong. Addresses inside this process ("inproc:NAME" as the
// advertised host) are taken only under kTrustEveryone.
absl::StatusOr<JoinRequest> CheckHello(const proto::Hello& hello, const HelloSource& source);

absl::StatusOr<Heartbeat> CheckHeartbeat(const proto::Heartbeat& heartbeat);

}  // namespace renga::cluster

#endif  // RENGA_COORDINATOR_CLUSTER_JOIN_CHECKS_H_

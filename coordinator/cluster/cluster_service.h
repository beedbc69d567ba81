// The Cluster service: enrolment, and Join streams that become calls on a Membership.
#ifndef RENGA_COORDINATOR_CLUSTER_CLUSTER_SERVICE_H_
#define RENGA_COORDINATOR_CLUSTER_CLUSTER_SERVICE_H_

#include <memory>

#include "coordinator/cluster/membership.h"
#include "transport/identity.h"
#include "transport/peer_identity.h"

namespace grpc {
class Service;
}  // namespace grpc

namespace renga::cluster {

// Thread-safe. Owns a thread that looks for silent members and for strangers that open a stream
// and say nothing.
class ClusterService {
 public:
  struct Options {
    Membership* membership = nullptr;
    // Null where links carry no certificates: then nobody can or need enrol.
    const transport::Authority* authority = nullptr;
    transport::PeerPolicy policy = transport::PeerPolicy::kMutualTls;
  };
  // What `options` points to outlives the service.
  explicit ClusterService(const Options& options);
  // The server it was registered with has been shut down.
  ~ClusterService();

  grpc::Service* service();
  // Tells every member that the coordinator is leaving and ends its stream; later Joins are
  // refused. Called before the server's shutdown, which waits for the streams.
  void SayGoodbye();

 private:
  class Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace renga::cluster

#endif  // RENGA_COORDINATOR_CLUSTER_CLUSTER_SERVICE_H_

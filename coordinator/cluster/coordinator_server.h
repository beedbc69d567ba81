// The coordinator's gRPC server: the Cluster and Pieces services, on an address or only inside
// this process.
#ifndef RENGA_COORDINATOR_CLUSTER_COORDINATOR_SERVER_H_
#define RENGA_COORDINATOR_CLUSTER_COORDINATOR_SERVER_H_

#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "coordinator/cluster/membership.h"
#include "coordinator/cluster/model_store.h"
#include "transport/identity.h"

namespace grpc {
class Server;
}  // namespace grpc

namespace renga::cluster {

class CoordinatorServer {
 public:
  struct Options {
    // These outlive the server.
    Membership* membership = nullptr;
    const ModelStore* store = nullptr;
    // With an authority every link is mutual TLS and workers enrol. Null: plain text, for
    // loopback addresses and in-process channels only.
    const transport::Authority* authority = nullptr;
    // "host:port", port 0 for a free one. Empty: reached only through server()'s in-process
    // channels (transport::InProcessDialer), and no authority.
    std::string address;
  };
  // kAlreadyExists when the port is taken, kPermissionDenied when it may not be used, kUnavailable
  // when the address is not this machine's, kInvalidArgument for a bad address or plain text
  // anywhere but on loopback.
  static absl::StatusOr<std::unique_ptr<CoordinatorServer>> Start(const Options& options);
  // Says goodbye to the workers and waits until all calls have ended.
  ~CoordinatorServer();
  CoordinatorServer(const CoordinatorServer&) = delete;
  CoordinatorServer& operator=(const CoordinatorServer&) = delete;

  int port() const;  // 0 in process only
  grpc::Server* server() const;

 private:
  struct Parts;
  explicit CoordinatorServer(std::unique_ptr<Parts> parts);
  std::unique_ptr<Parts> parts_;
};

}  // namespace renga::cluster

#endif  // RENGA_COORDINATOR_CLUSTER_COORDINATOR_SERVER_H_

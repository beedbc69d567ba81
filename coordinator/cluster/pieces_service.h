// The Pieces service over a ModelStore: pieces of shards for workers that lack them.
#ifndef RENGA_COORDINATOR_CLUSTER_PIECES_SERVICE_H_
#define RENGA_COORDINATOR_CLUSTER_PIECES_SERVICE_H_

#include <memory>

#include "coordinator/cluster/model_store.h"
#include "transport/peer_identity.h"

namespace grpc {
class Service;
}  // namespace grpc

namespace renga::cluster {

// Owns the thread that reads the model file, so that a slow disk holds up no other call. A stream
// has one piece in memory at a time: the next is read when gRPC has taken the one before.
class PiecesService {
 public:
  // `store` outlives the service.
  PiecesService(const ModelStore* store, transport::PeerPolicy policy);
  // The server it was registered with has been shut down.
  ~PiecesService();

  grpc::Service* service();

 private:
  class Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace renga::cluster

#endif  // RENGA_COORDINATOR_CLUSTER_PIECES_SERVICE_H_

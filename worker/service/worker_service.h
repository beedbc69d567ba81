// The Worker service: gRPC's calls become calls on a ShardHost. Callbacks only hand over.
#ifndef RENGA_WORKER_SERVICE_WORKER_SERVICE_H_
#define RENGA_WORKER_SERVICE_WORKER_SERVICE_H_

#include <memory>

#include "transport/peer_identity.h"
#include "worker/service/link_meter.h"
#include "worker/service/shard_host.h"

namespace grpc {
class Service;
}  // namespace grpc

namespace renga::worker {

// Thread-safe. All of its calls are the coordinator's alone.
class WorkerService {
 public:
  explicit WorkerService(transport::PeerPolicy policy);
  // The server it was registered with has been shut down.
  ~WorkerService();

  // Before the server starts; `host` outlives the service.
  void SetHost(ShardHost* host);
  // The same.
  void SetLinkMeter(LinkMeter* meter);
  grpc::Service* service();

 private:
  class Impl;
  const std::unique_ptr<Impl> impl_;
};

}  // namespace renga::worker

#endif  // RENGA_WORKER_SERVICE_WORKER_SERVICE_H_

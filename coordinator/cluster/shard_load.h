// One Worker.Load call: a worker loads its shard and says how far it is.
#ifndef RENGA_COORDINATOR_CLUSTER_SHARD_LOAD_H_
#define RENGA_COORDINATOR_CLUSTER_SHARD_LOAD_H_

#include <functional>
#include <memory>
#include <optional>

#include "absl/status/status.h"
#include "coordinator/cluster/cluster_status.h"
#include "proto/worker.pb.h"

namespace grpc {
class Channel;
}  // namespace grpc

namespace renga::cluster {

// Thread-safe.
class ShardLoad {
 public:
  // Starts the call. `on_change` runs on gRPC threads after progress and at the end; it must
  // neither block nor destroy this object.
  ShardLoad(std::shared_ptr<grpc::Channel> channel, proto::LoadRequest request,
            std::function<void()> on_change);
  // Cancels the call and waits until gRPC is done with it.
  ~ShardLoad();
  ShardLoad(const ShardLoad&) = delete;
  ShardLoad& operator=(const ShardLoad&) = delete;

  LoadBytes progress() const;
  // How often the worker has reported; a load whose count stands still is stalled.
  uint64_t reports() const;
  // Nullopt while it runs. OK only when the worker said that it is ready.
  std::optional<absl::Status> result() const;

 private:
  class Reactor;
  const std::unique_ptr<Reactor> reactor_;
};

}  // namespace renga::cluster

#endif  // RENGA_COORDINATOR_CLUSTER_SHARD_LOAD_H_

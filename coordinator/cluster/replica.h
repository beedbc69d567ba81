// One pipeline of the cluster, from its plan to its end: its workers load their shards, then steps
// run, until a worker is lost or the plan does not do any more.
#ifndef RENGA_COORDINATOR_CLUSTER_REPLICA_H_
#define RENGA_COORDINATOR_CLUSTER_REPLICA_H_

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <vector>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "coordinator/cluster/cluster_status.h"
#include "coordinator/cluster/membership.h"
#include "coordinator/cluster/model_store.h"
#include "coordinator/cluster/pipeline_impl.h"
#include "coordinator/cluster/placement.h"
#include "coordinator/cluster/shard_load.h"
#include "transport/dialer.h"

namespace renga::cluster {

// Not thread-safe: the cluster manager's own. Destroying it cancels loads and breaks the pipeline
// (which serving may hold longer).
class Replica {
 public:
  struct Options {
    // These outlive the replica.
    const ModelStore* store = nullptr;
    transport::Dialer* dialer = nullptr;
    absl::Duration step_deadline;
    absl::Duration load_stall_limit;
    // When there is something to look at, on any thread, maybe after the replica is gone. It must
    // neither block nor destroy the replica.
    std::function<void()> wake;
  };
  // Why a replica is over.
  struct End {
    absl::Status why;
    bool expected = false;         // nothing that anybody need be warned of
    std::optional<Member> failed;  // who could not load its shard
  };

  // Has the workers load.
  Replica(Options options, std::shared_ptr<const Placement> placement, uint64_t epoch,
          absl::Duration now);
  ~Replica();
  Replica(const Replica&) = delete;
  Replica& operator=(const Replica&) = delete;

  // Goes on with loading, or looks whether the pipeline still stands on what it was planned with.
  // With an end the replica is of no more use.
  std::optional<End> LookAround(const std::vector<Member>& members, absl::Duration now);
  // Whether loads went on since this was asked last.
  bool TakeProgress();

  const std::shared_ptr<const Placement>& placement() const { return placement_; }
  uint64_t epoch() const { return epoch_; }
  // Null while it loads.
  const std::shared_ptr<PipelineImpl>& pipeline() const { return pipeline_; }
  absl::Duration ready_at() const { return ready_at_; }             // once there is a pipeline
  const std::vector<LoadBytes>& loaded() const { return loaded_; }  // by worker index

 private:
  struct Load {
    std::unique_ptr<ShardLoad> call;
    uint64_t reports = 0;
    absl::Duration last_report;
  };

  std::optional<End> CheckLoads(const std::vector<Member>& members, absl::Duration now);
  std::optional<End> CheckPipeline(const std::vector<Member>& members);
  bool Stalled(size_t worker, absl::Duration now);
  void TellProgress(uint32_t worker, const Heartbeat& heartbeat);
  void StartPipeline(absl::Duration now);

  const Options options_;
  const std::shared_ptr<const Placement> placement_;
  const uint64_t epoch_;
  std::vector<Load> loads_;  // by worker index
  std::vector<LoadBytes> loaded_;
  bool progress_ = false;
  std::shared_ptr<PipelineImpl> pipeline_;
  absl::Duration ready_at_;
};

}  // namespace renga::cluster

#endif  // RENGA_COORDINATOR_CLUSTER_REPLICA_H_

// Brings a model onto the cluster and keeps it there: waits until the workers that have joined can
// hold it, plans, has them load their shards, runs the pipeline, and starts over with whoever is
// there when a worker is lost.
//
//   waiting -> loading -> ready -> broken -> loading ...
//
// Where replicas are asked for (PlanRequest::max_replicas) there are several pipelines at one time,
// each on workers of its own and with an epoch of its own. The loss of a worker breaks its replica
// alone; that one is planned anew from the workers that are in no other, also from those that join
// later. Before the first plan there must be room for as many replicas as were asked for.
#ifndef RENGA_COORDINATOR_CLUSTER_CLUSTER_MANAGER_H_
#define RENGA_COORDINATOR_CLUSTER_CLUSTER_MANAGER_H_

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "coordinator/cluster/cluster_status.h"
#include "coordinator/cluster/link_survey.h"
#include "coordinator/cluster/membership.h"
#include "coordinator/cluster/model_store.h"
#include "coordinator/cluster/pipeline.h"
#include "partition/plan.h"
#include "transport/dialer.h"

namespace renga::cluster {

// Thread-safe. Owns a thread that does everything; destroying it cancels loads and breaks the
// pipeline (which serving may hold longer).
class ClusterManager : public PipelineSource {
 public:
  struct Options {
    // These outlive the manager.
    const ModelStore* store = nullptr;
    Membership* membership = nullptr;
    transport::Dialer* dialer = nullptr;
    // Measures links; plans wait for it, but not for long. Null: links are not measured.
    const LinkSurvey* links = nullptr;

    partition::PlanRequest request;
    // The first plan waits until this many workers are there; 0: until the model fits.
    int expected_workers = 0;
    // How long a lost worker of a plan may take to come back before the plan is made without it.
    absl::Duration rejoin_grace = absl::Seconds(3);
    // A step that takes longer breaks the pipeline, so that nothing waits for ever. While weights
    // come to the worker that is at it, it may take its time: this counts from the last of them.
    absl::Duration step_deadline = absl::Minutes(10);
    // A load without any progress for this long has failed.
    absl::Duration load_stall_limit = absl::Minutes(2);
    // After every change of state and while loads make progress (at most some times a second), on
    // the manager's thread. Must not block for long nor destroy the manager.
    std::function<void(const ClusterStatus&)> on_change;
    // Where the placement is kept over restarts of the coordinator; empty: nowhere.
    std::string last_placement_file;
  };
  explicit ClusterManager(Options options);
  ~ClusterManager() override;
  ClusterManager(const ClusterManager&) = delete;
  ClusterManager& operator=(const ClusterManager&) = delete;

  // That of the first replica that is ready.
  absl::StatusOr<std::shared_ptr<Pipeline>> CurrentPipeline() override;
  // One for each replica there may be; as long as the manager.
  std::vector<PipelineSource*> Sources() const;
  ClusterStatus Status() const;

  // Waits until all replicas of the plan are ready, and as many as were asked for. The last refusal
  // or failure when that does not happen within `timeout` or `cancelled` (may be empty; asked some
  // times a second) becomes true (kCancelled).
  absl::Status WaitUntilReady(absl::Duration timeout, const std::function<bool()>& cancelled);

 private:
  class Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace renga::cluster

#endif  // RENGA_COORDINATOR_CLUSTER_CLUSTER_MANAGER_H_

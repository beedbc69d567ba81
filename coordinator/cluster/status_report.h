// Puts a ClusterStatus together from what the manager knows and what the members say.
#ifndef RENGA_COORDINATOR_CLUSTER_STATUS_REPORT_H_
#define RENGA_COORDINATOR_CLUSTER_STATUS_REPORT_H_

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "coordinator/cluster/cluster_status.h"
#include "coordinator/cluster/membership.h"
#include "coordinator/cluster/model_store.h"
#include "coordinator/cluster/pipeline_impl.h"
#include "coordinator/cluster/placement.h"

namespace renga::cluster {

// The manager's side of a status: what it is doing, with whom.
struct ReplicaView {
  ClusterState state = ClusterState::kLoading;
  uint64_t epoch = 0;
  std::shared_ptr<const Placement> placement;
  std::vector<LoadBytes> loads;            // by worker index
  std::shared_ptr<PipelineImpl> pipeline;  // null while it loads
  PipelineTimes times;                     // the pipeline's
};
struct ClusterView {
  ClusterState state = ClusterState::kWaiting;
  std::string sentence;
  std::vector<ReplicaView> replicas;            // those that have a plan
  std::map<std::string, std::string> left_out;  // worker id to why it is left out of plans
};

ClusterStatus MakeStatus(const ClusterView& view, const ModelStore& store,
                         const std::vector<Member>& members, absl::Duration now);

// "ada (w-12ab34cd56ef)".
std::string DescribeWorker(const Member& member);

}  // namespace renga::cluster

#endif  // RENGA_COORDINATOR_CLUSTER_STATUS_REPORT_H_

// What `renga status`, the web page and metrics show of the cluster: plain values, copied.
#ifndef RENGA_COORDINATOR_CLUSTER_CLUSTER_STATUS_H_
#define RENGA_COORDINATOR_CLUSTER_CLUSTER_STATUS_H_

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "coordinator/cluster/link_book.h"
#include "coordinator/cluster/membership.h"
#include "coordinator/cluster/step_times.h"
#include "model/shard_spec.h"

namespace renga::cluster {

enum class ClusterState {
  kWaiting,  // for workers, or for a plan that fits
  kLoading,  // workers load their shards
  kReady,    // steps run
  kBroken,   // a worker of the plan was lost or failed, and no new plan fits yet
};
absl::string_view ClusterStateName(ClusterState state);  // "waiting", "loading", ...

enum class WorkerState {
  kActive,  // part of the present plan
  kIdle,    // a member without a part
  kLost,    // was a member
};
absl::string_view WorkerStateName(WorkerState state);  // "active", "idle", "lost"

// Bytes of a worker's load, as it reports them.
struct LoadBytes {
  int64_t done = 0;
  int64_t total = 0;
  int64_t fetched = 0;  // came over the network
  int64_t cached = 0;   // came from a cache or a local copy
};

struct WorkerStatus {
  std::string id;
  std::string name;
  std::string address;
  std::string data_address;  // where steps and results travel
  WorkerState state = WorkerState::kIdle;
  absl::Duration in_state;  // how long it has been a member, or lost
  std::string detail;       // why it is lost, idle or left out; may be empty
  WorkerOffer offer;
  absl::Duration heartbeat_age;
  std::optional<absl::Duration> speed_age;  // of the offer's measurement; nullopt: not measured
  Heartbeat heartbeat;

  // Of its part in the present plan of a replica.
  std::optional<uint32_t> replica;  // its place in ClusterStatus::replicas
  std::optional<uint32_t> worker_index;
  model::ShardSpec shard;
  int64_t planned_bytes = 0;
  // Of experts that come and go, what a token misses by the usage that was measured; nullopt where
  // that was not.
  std::optional<int64_t> expected_missed_bytes = std::nullopt;
  double predicted_ms = 0;                     // of a token's time
  double planned_weight_bytes_per_second = 0;  // that the plan was made with; the offer has today's
  LoadBytes load;
  WorkerTimes times;  // measured
};

// A number that the plan was made with, and what it then was; measured is 0 before the first step.
struct Comparison {
  double predicted_ms = 0;
  double measured_ms = 0;
};

// A stage's part of a token's time.
struct StageStatus {
  std::vector<uint32_t> workers;  // indices of its members
  model::Range layers;
  // To it from the stage before, or from the coordinator. Only the sum over all hops is measured,
  // as what is left of round trips; it is divided here as the plan divided it, or
  // alike when links were not measured.
  Comparison hop;
  Comparison compute;  // of its slowest member, with what it waits for the others
};

// One pipeline, which has the whole model.
struct ReplicaStatus {
  ClusterState state = ClusterState::kWaiting;  // kLoading or kReady where there is a plan
  uint64_t epoch = 0;
  model::RuntimeLimits limits;
  double predicted_token_ms = 0;
  PipelineTimes times;  // measured
  std::vector<StageStatus> stages;
  Comparison head;        // the slowest head block
  Comparison answer_hop;  // to it, where it is on no stage, and back to the coordinator
};

struct ClusterStatus {
  ClusterState state = ClusterState::kWaiting;  // kReady as soon as one replica is
  std::string sentence;  // for users: what is going on, or what is missing, with numbers
  uint64_t epoch = 0;    // of the newest plan, 0 when there is none
  std::string model_name;
  std::string model_id;                 // hexadecimal
  std::vector<ReplicaStatus> replicas;  // those that have a plan
  std::string plan_text;                // partition::ExplainPlan; empty without a plan
  std::vector<std::string> warnings;
  std::vector<WorkerStatus> workers;  // the plans' in order, then idle ones, then lost ones
  std::vector<LinkProfile> links;     // between those that are there, as far as measured
};

}  // namespace renga::cluster

#endif  // RENGA_COORDINATOR_CLUSTER_CLUSTER_STATUS_H_

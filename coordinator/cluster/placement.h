// From members to a placement: the planner's plan, with every worker's index on the wire and
// address. Pure functions.
#ifndef RENGA_COORDINATOR_CLUSTER_PLACEMENT_H_
#define RENGA_COORDINATOR_CLUSTER_PLACEMENT_H_

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "coordinator/cluster/last_placement.h"
#include "coordinator/cluster/link_book.h"
#include "coordinator/cluster/membership.h"
#include "coordinator/cluster/model_store.h"
#include "model/footprint.h"
#include "model/shard_spec.h"
#include "partition/cluster_file.h"
#include "partition/plan.h"

namespace renga::cluster {

// A worker that holds a part of the model. Its place in Placement::workers is its worker index, in
// every message of the epoch.
struct PlacedWorker {
  Member member;
  model::ShardSpec spec;
  model::ShardBytes bytes;
  double predicted_ms = 0;
  int64_t streamed_bytes = 0;  // partition::WorkerPlan's
  bool by_measured_usage = false;
};

struct IdleWorker {
  Member member;
  std::string reason;
};

// A worker that held a part of the model, and may keep the pieces of it on its disk.
struct PieceHolder {
  Member member;
  model::ShardSpec spec;
};

struct Placement {
  // The members of each stage in order, then workers that hold only a head block.
  std::vector<PlacedWorker> workers;
  std::vector<std::vector<uint32_t>> stages;  // indices of the members, in rank order
  std::vector<bool> sums_on_cards;            // of each stage: proto::Group
  std::vector<uint32_t> heads;  // indices of the workers with a head block, ascending by rows
  // Index of the worker with the embedding; none: the coordinator has it.
  std::optional<uint32_t> embedding;
  model::RuntimeLimits limits;
  std::vector<IdleWorker> idle;
  std::vector<PieceHolder> holders;
  bool lazy = false;  // weights come into memory as steps need them
  double predicted_token_ms = 0;
  partition::PlanTimes predicted;
  std::string text;                   // for people
  std::vector<std::string> warnings;  // sentences
};

// The members, and the links between them that were measured, as planners see them. Pairs without a
// measured link cost nothing. `footprint` is of the model that is planned: its formats decide how
// fast a worker is.
partition::Cluster ToCluster(const std::vector<Member>& members,
                             const model::ModelFootprint& footprint,
                             const std::vector<LinkProfile>& links);

// Plans `request` for `members`, as they were placed last where that is nearly as good. A placement
// for each replica; no member is in two. Errors are the planner's, sentences for users. `links` are
// those that were measured.
absl::StatusOr<std::vector<Placement>> PlaceModel(const ModelStore& store,
                                                  const std::vector<Member>& members,
                                                  partition::PlanRequest request,
                                                  const LastPlacement& last,
                                                  const std::vector<LinkProfile>& links);

// Those of the members that are there and can be reached by others.
std::vector<PieceHolder> HoldersAmong(const std::vector<Member>& members,
                                      const LastPlacement& last);

// What to remember of it.
LastPlacement Remember(const Placement& placement, int64_t replica);

}  // namespace renga::cluster

#endif  // RENGA_COORDINATOR_CLUSTER_PLACEMENT_H_

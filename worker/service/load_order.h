// What a coordinator orders a worker to hold, as plain structs and checked: the LoadRequest against
// itself, and every tensor in it against the model's architecture table. Nothing here is known to
// fit the worker; that is the engine's and the budget's to say.
#ifndef RENGA_WORKER_SERVICE_LOAD_ORDER_H_
#define RENGA_WORKER_SERVICE_LOAD_ORDER_H_

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/status/statusor.h"
#include "base/content_hash.h"
#include "base/data_type.h"
#include "model/architecture.h"
#include "model/shard_spec.h"
#include "proto/worker.pb.h"
#include "transport/dialer.h"
#include "worker/engine/shard.h"

namespace renga::worker {

// A tensor as the coordinator ships it: its size is that of its shape in the architecture table.
struct ShippedTensor {
  uint32_t index = 0;  // in the whole model: what pieces are asked by
  base::DataType type = base::DataType::kInvalid;
  int64_t byte_size = 0;
  int64_t rows = 1;                       // of its shape
  bool of_experts = false;                // a matrix for each expert of a layer
  std::vector<base::ContentHash> pieces;  // of transport::kPieceBytes, the last may be shorter
};

// The pieces of one tensor that a shard reads.
struct NeededPieces {
  std::string tensor;
  uint32_t first = 0;
  uint32_t count = 0;
  bool is_layers_matrix = false;
};

struct RoutePeer {
  uint32_t worker_index = 0;  // in the plan
  transport::PeerAddress address;
};

// Where a stage's output goes: to members of the next stage, or (the last stage) to the head
// blocks' owners. Both are empty where another member of the group sends.
struct Routes {
  std::vector<RoutePeer> next_stage;
  std::vector<RoutePeer> heads;
  // With the embedding: the members of the first stage, this worker perhaps among them.
  std::vector<RoutePeer> first_stage;
};

// A tensor-parallel group: addresses of its members' data ports, in rank order.
struct GroupOrder {
  int rank = 0;  // this worker's
  std::vector<transport::PeerAddress> members;
  bool sums_on_cards = false;  // if all members can: StageGroup
};

// Another worker that may keep pieces of these tensors (ShippedTensor::index).
struct PieceHolder {
  transport::PeerAddress address;
  std::vector<uint32_t> tensors;
};

struct LoadOrder {
  uint64_t epoch = 0;
  uint32_t worker_index = 0;  // this worker's place in the plan
  std::string model_id;       // 16 bytes
  model::Model model;
  absl::flat_hash_map<std::string, ShippedTensor> tensors;
  std::vector<NeededPieces> needed;  // in the order the engine reads them for an eager shard
  model::ShardSpec spec;
  model::RuntimeLimits limits;
  Routes routes;
  std::optional<GroupOrder> group;  // exactly when spec has a slice
  engine::LoadMode mode = engine::LoadMode::kEager;
  std::vector<PieceHolder> piece_holders;

  // Bytes of piece `piece` of `tensor`; the piece must exist.
  static int64_t PieceSize(const ShippedTensor& tensor, uint32_t piece);
};

// kInvalidArgument names what is wrong; kUnimplemented an architecture or tensor type this build
// does not know.
absl::StatusOr<LoadOrder> FromProto(const proto::LoadRequest& request);

}  // namespace renga::worker

#endif  // RENGA_WORKER_SERVICE_LOAD_ORDER_H_

#include "coordinator/cluster/load_request.h"

#include <algorithm>

#include "base/data_type.h"
#include "transport/wire.h"

namespace renga::cluster {
namespace {

void SetRange(const model::Range& range, proto::Range& message) {
  message.set_begin(range.begin);
  message.set_end(range.end);
}

void SetPeer(const Placement& placement, uint32_t worker, proto::Peer& message) {
  const Member& member = placement.workers[worker].member;
  message.set_worker_index(worker);
  message.set_address(member.data_address);
  message.set_worker_id(member.id);
}

void AddTensor(const Manifest& manifest, uint32_t index, proto::Manifest& message) {
  const ManifestTensor& tensor = manifest.tensors[index];
  proto::TensorEntry* entry = message.add_tensors();
  entry->set_index(index);
  entry->set_name(tensor.name);
  entry->set_gguf_type(base::GetDataTypeInfo(tensor.type).gguf_id);
  for (int64_t dim : tensor.dims) entry->add_dims(dim);
  entry->set_byte_size(tensor.byte_size);
  for (const base::ContentHash& hash : tensor.pieces) {
    entry->mutable_piece_hashes()->append(WireBytes(hash));
  }
}

// Who sends to the heads: a member of the last stage to its own block, the others in turn.
void SetHeads(const Placement& placement, uint32_t worker, proto::LoadRequest& request) {
  const std::vector<uint32_t>& stage = placement.stages.back();
  for (size_t i = 0; i < placement.heads.size(); ++i) {
    const uint32_t head = placement.heads[i];
    const bool is_member = std::find(stage.begin(), stage.end(), head) != stage.end();
    const uint32_t sender = is_member ? head : stage[i % stage.size()];
    if (sender == worker) SetPeer(placement, head, *request.add_heads());
  }
}

void SetGroup(const Placement& placement, const std::vector<uint32_t>& stage, size_t rank,
              proto::LoadRequest& request) {
  const model::LayerSlice& slice = *placement.workers[stage[rank]].spec.slice;
  SetRange(slice.heads, *request.mutable_slice()->mutable_heads());
  SetRange(slice.ff, *request.mutable_slice()->mutable_ff());
  request.mutable_group()->set_rank(static_cast<uint32_t>(rank));
  for (const uint32_t member : stage) {
    SetPeer(placement, member, *request.mutable_group()->add_members());
  }
}

// The worker's group, and where its output goes. Members of one stage have the same rows; those of
// the next are shared out among them.
void SetStage(const Placement& placement, uint32_t worker, proto::LoadRequest& request) {
  for (size_t s = 0; s < placement.stages.size(); ++s) {
    const std::vector<uint32_t>& stage = placement.stages[s];
    const auto found = std::find(stage.begin(), stage.end(), worker);
    if (found == stage.end()) continue;
    const auto rank = static_cast<size_t>(found - stage.begin());
    if (stage.size() > 1) {
      SetGroup(placement, stage, rank, request);
      request.mutable_group()->set_sums_on_cards(placement.sums_on_cards[s]);
    }
    if (s + 1 == placement.stages.size()) return SetHeads(placement, worker, request);
    const std::vector<uint32_t>& next = placement.stages[s + 1];
    for (size_t i = rank; i < next.size(); i += stage.size()) {
      SetPeer(placement, next[i], *request.add_next_stage());
    }
    return;
  }
}

// The others that may have some of the tensors on their disks, of the manifest's.
void SetHolders(const ModelStore& store, const Placement& placement, const Member& worker,
                proto::LoadRequest& request) {
  for (const PieceHolder& holder : placement.holders) {
    if (holder.member.id == worker.id) continue;
    proto::PieceHolder message;
    for (const uint32_t index : store.TensorsOf(holder.spec)) {
      const auto& needed = request.manifest().tensors();
      const bool wanted = std::any_of(needed.begin(), needed.end(),
                                      [&](const auto& entry) { return entry.index() == index; });
      if (wanted) message.add_tensors(index);
    }
    if (message.tensors().empty()) continue;
    message.set_address(holder.member.address);
    message.set_worker_id(holder.member.id);
    *request.add_piece_holders() = std::move(message);
  }
}

}  // namespace

proto::LoadRequest MakeLoadRequest(const ModelStore& store, const Placement& placement,
                                   uint32_t worker, uint64_t epoch) {
  const PlacedWorker& placed = placement.workers[worker];
  proto::LoadRequest request;
  request.set_epoch(epoch);
  request.set_worker_index(worker);
  proto::Manifest* manifest = request.mutable_manifest();
  manifest->set_model_id(WireBytes(store.manifest().model_id));
  *manifest->mutable_config() = transport::ToProto(store.model().config);
  for (uint32_t index : store.TensorsOf(placed.spec)) {
    AddTensor(store.manifest(), index, *manifest);
  }
  SetRange(placed.spec.layers, *request.mutable_layers());
  SetRange(placed.spec.head_rows, *request.mutable_head_rows());
  request.set_kv_blocks(placement.limits.kv_blocks);
  request.set_max_step_tokens(placement.limits.max_step_tokens);
  request.set_max_step_outputs(placement.limits.max_step_outputs);
  request.set_kv_gguf_type(base::GetDataTypeInfo(placement.limits.kv_type).gguf_id);
  request.set_activation_type(transport::ToProto(placement.limits.wire_type));
  request.set_load_lazily(placement.lazy);
  if (!placement.limits.approximation.exact()) {
    *request.mutable_approximation() =
        transport::ToProto(placement.limits.approximation, store.model().config);
  }
  if (const auto& near = placement.limits.near_rows; near != nullptr) {
    request.set_near_rows(transport::RowSetToWire(*near, store.model().config.vocab_size));
  }
  SetHolders(store, placement, placed.member, request);
  SetStage(placement, worker, request);
  if (placed.spec.embedding) {
    request.set_embedding(true);
    for (const uint32_t member : placement.stages.front()) {
      SetPeer(placement, member, *request.add_first_stage());
    }
  }
  return request;
}

}  // namespace renga::cluster

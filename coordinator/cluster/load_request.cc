#include "coordinator/cluster/load_request.h"

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
  message.set_address(member.address);
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
  const auto stage_count = static_cast<uint32_t>(placement.stage_count);
  if (worker + 1 < stage_count) {
    SetPeer(placement, worker + 1, *request.mutable_next_stage());
  } else if (worker + 1 == stage_count) {
    for (uint32_t head : placement.heads) SetPeer(placement, head, *request.add_heads());
  }
  return request;
}

}  // namespace renga::cluster

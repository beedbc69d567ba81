#include "worker/service/load_order.h"

#include <algorithm>
#include <cstring>
#include <limits>
#include <utility>

#include "absl/container/flat_hash_set.h"
#include "absl/strings/escaping.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "base/kv_type.h"
#include "base/status_macros.h"
#include "model/block_rows.h"
#include "model/layer_slice.h"
#include "transport/group_communicator.h"
#include "transport/wire.h"

namespace renga::worker {
namespace {

constexpr size_t kModelIdBytes = 16;
constexpr size_t kHashBytes = 16;
constexpr int kMaxTensors = 1 << 20;
constexpr int kMaxHeads = 4096;
constexpr int kMaxHolders = 256;
constexpr size_t kMaxAddressBytes = 512;
constexpr int64_t kMaxLimit = int64_t{1} << 31;

absl::Status Wrong(absl::string_view what) {
  return absl::InvalidArgumentError(absl::StrCat("load order: ", what));
}

// Names come from a peer and go into messages for people.
std::string Printable(absl::string_view name) { return absl::CHexEscape(name.substr(0, 80)); }

int64_t PieceCount(int64_t byte_size) {
  return (byte_size + transport::kPieceBytes - 1) / transport::kPieceBytes;
}

std::vector<base::ContentHash> UnpackHashes(const std::string& bytes) {
  std::vector<base::ContentHash> hashes(bytes.size() / kHashBytes);
  for (size_t i = 0; i < hashes.size(); ++i) {
    // High, then low, little endian as memory is.
    std::memcpy(&hashes[i].high, bytes.data() + i * kHashBytes, sizeof(uint64_t));
    std::memcpy(&hashes[i].low, bytes.data() + i * kHashBytes + sizeof(uint64_t), sizeof(uint64_t));
  }
  return hashes;
}

// An entry whose own numbers fit each other; its shape is compared with the table later.
absl::StatusOr<ShippedTensor> ReadEntry(const proto::TensorEntry& entry) {
  const std::string name = Printable(entry.name());
  const auto type = base::DataTypeFromGgufId(entry.gguf_type());
  if (!type.has_value()) {
    return absl::UnimplementedError(
        absl::StrCat("tensor ", name, " has the unknown type number ", entry.gguf_type()));
  }
  if (entry.byte_size() <= 0 || entry.byte_size() > (int64_t{1} << 46)) {
    return Wrong(absl::StrCat("tensor ", name, " has ", entry.byte_size(), " bytes"));
  }
  const int64_t pieces = PieceCount(entry.byte_size());
  if (static_cast<int64_t>(entry.piece_hashes().size()) !=
      pieces * static_cast<int64_t>(kHashBytes)) {
    return Wrong(absl::StrCat("tensor ", name, " has ", pieces, " pieces but ",
                              entry.piece_hashes().size(), " bytes of hashes"));
  }
  return ShippedTensor{.index = entry.index(),
                       .type = *type,
                       .byte_size = entry.byte_size(),
                       .pieces = UnpackHashes(entry.piece_hashes())};
}

absl::Status ReadManifest(const proto::Manifest& manifest, LoadOrder& order,
                          absl::flat_hash_map<std::string, std::vector<int64_t>>& dims) {
  if (manifest.model_id().size() != kModelIdBytes) return Wrong("model_id is not 16 bytes");
  if (manifest.tensors_size() > kMaxTensors) return Wrong("too many tensors");
  order.model_id = manifest.model_id();
  RENGA_ASSIGN_OR_RETURN(order.model.config, transport::FromProto(manifest.config()));
  RENGA_ASSIGN_OR_RETURN(order.model.architecture,
                         model::FindArchitecture(order.model.config.architecture));
  absl::flat_hash_set<uint32_t> indices;
  for (const proto::TensorEntry& entry : manifest.tensors()) {
    RENGA_ASSIGN_OR_RETURN(ShippedTensor tensor, ReadEntry(entry));
    if (!indices.insert(tensor.index).second) return Wrong("two tensors have the same index");
    if (!order.tensors.emplace(entry.name(), std::move(tensor)).second) {
      return Wrong(absl::StrCat("tensor ", Printable(entry.name()), " is there twice"));
    }
    dims[entry.name()].assign(entry.dims().begin(), entry.dims().end());
  }
  return absl::OkStatus();
}

bool IsInside(const proto::Range& range, int64_t size) {
  return range.begin() >= 0 && range.begin() <= range.end() && range.end() <= size;
}

absl::Status ReadSpec(const proto::LoadRequest& request, LoadOrder& order) {
  const model::ModelConfig& config = order.model.config;
  if (!IsInside(request.layers(), config.n_layers)) return Wrong("layers are not in the model");
  if (!IsInside(request.head_rows(), config.vocab_size)) {
    return Wrong("head_rows are not in the vocabulary");
  }
  order.spec.layers = {.begin = request.layers().begin(), .end = request.layers().end()};
  order.spec.head_rows = {.begin = request.head_rows().begin(), .end = request.head_rows().end()};
  order.spec.embedding = request.embedding();
  if (order.spec.empty()) return Wrong("an empty shard");
  if (request.has_slice()) {
    const auto range_of = [](const proto::Range& range) {
      return model::Range{.begin = range.begin(), .end = range.end()};
    };
    order.spec.slice = {.heads = range_of(request.slice().heads()),
                        .ff = range_of(request.slice().ff())};
    // Where blocks may be cut is checked with the tensors' types, at loading.
    RENGA_RETURN_IF_ERROR(model::CheckSlice(config, {}, *order.spec.slice));
  }

  const auto in_range = [](int64_t value, int64_t min) {
    return value >= min && value < kMaxLimit;
  };
  if (!in_range(request.kv_blocks(), 0) || !in_range(request.max_step_tokens(), 1) ||
      !in_range(request.max_step_outputs(), 0)) {
    return Wrong("kv_blocks, max_step_tokens or max_step_outputs is out of range");
  }
  const auto kv_type = base::DataTypeFromGgufId(request.kv_gguf_type());
  if (!kv_type.has_value() || !base::IsKvType(*kv_type)) {
    return Wrong("the KV cache's type is none of F16, F32 and Q8_0");
  }
  order.limits = {.kv_blocks = request.kv_blocks(),
                  .max_step_tokens = request.max_step_tokens(),
                  .max_step_outputs = request.max_step_outputs(),
                  .kv_type = *kv_type};
  RENGA_ASSIGN_OR_RETURN(order.limits.wire_type, transport::FromProto(request.activation_type()));
  if (request.has_approximation()) {
    RENGA_ASSIGN_OR_RETURN(order.limits.approximation,
                           transport::FromProto(request.approximation(), config));
  }
  if (!request.near_rows().empty()) {
    RENGA_ASSIGN_OR_RETURN(order.limits.near_rows,
                           transport::RowSetFromWire(request.near_rows(), config, "near_rows"));
    // Not both: each says in a way of its own which matrices a block's rows lie in.
    if (order.limits.approximation.hot_rows != nullptr) {
      return Wrong("near_rows with an approximation's hot rows");
    }
  }
  if (request.load_lazily()) order.mode = engine::LoadMode::kLazy;
  const int64_t block = base::GetDataTypeInfo(order.limits.wire_type).block_elements;
  if (config.d_model % block != 0) {
    return Wrong(
        absl::StrCat("rows of ", config.d_model, " numbers cannot travel in blocks of ", block));
  }
  return absl::OkStatus();
}

// Compares one tensor with what the table expects and notes the pieces of `rows` of it. Columns do
// not matter: every piece of a row's part is a piece of other members' parts too.
absl::Status Need(const model::TensorSpec& spec, const model::Range& rows,
                  const absl::flat_hash_map<std::string, std::vector<int64_t>>& dims,
                  LoadOrder& order) {
  const auto found = order.tensors.find(spec.name);
  if (found == order.tensors.end()) return Wrong(absl::StrCat("tensor ", spec.name, " is missing"));
  ShippedTensor& tensor = found->second;
  tensor.rows = spec.rows;
  tensor.of_experts = spec.experts > 0;
  const std::vector<int64_t>& shape = dims.at(spec.name);
  if (shape.empty() || !model::HasDims(spec, shape)) {
    return Wrong(absl::StrCat("tensor ", spec.name, " does not have the shape ", spec.columns,
                              " x ", spec.rows));
  }
  if (spec.must_be_f32 && tensor.type != base::DataType::kF32) {
    return Wrong(absl::StrCat("tensor ", spec.name, " must be F32"));
  }
  RENGA_ASSIGN_OR_RETURN(const int64_t row_bytes, base::RowBytes(tensor.type, spec.columns));
  int64_t byte_size = 0;
  if (__builtin_mul_overflow(row_bytes, spec.rows, &byte_size) || byte_size != tensor.byte_size) {
    return Wrong(absl::StrCat("tensor ", spec.name, " has ", tensor.byte_size,
                              " bytes, which its shape does not"));
  }
  if (rows.empty()) return absl::OkStatus();
  const int64_t first = rows.begin * row_bytes / transport::kPieceBytes;
  const int64_t end = PieceCount(rows.end * row_bytes);
  order.needed.push_back({.tensor = spec.name,
                          .first = static_cast<uint32_t>(first),
                          .count = static_cast<uint32_t>(end - first)});
  return absl::OkStatus();
}

// Rows that the shard holds, or parts of them.
model::Range HeldRows(const model::TensorSpec& spec, const LoadOrder& order) {
  if (!order.spec.slice.has_value()) return {.begin = 0, .end = spec.rows};
  const model::TensorPart part = model::PartOf(spec, order.model.config, *order.spec.slice);
  return part.columns.empty() ? model::Range{} : part.rows;
}

absl::Status CheckTensors(const absl::flat_hash_map<std::string, std::vector<int64_t>>& dims,
                          LoadOrder& order) {
  const model::ModelConfig& config = order.model.config;
  const auto need_all = [&](const model::TensorSpec& spec) {
    return Need(spec, {.begin = 0, .end = spec.rows}, dims, order);
  };
  if (!order.spec.layers.empty() && config.rope_has_factors) {
    RENGA_RETURN_IF_ERROR(need_all(model::RopeFactorsTensor(config)));
  }
  for (int64_t layer = order.spec.layers.begin; layer < order.spec.layers.end; ++layer) {
    for (const auto& spec : order.model.architecture->LayerTensors(config, layer)) {
      const size_t before = order.needed.size();
      RENGA_RETURN_IF_ERROR(Need(spec, HeldRows(spec, order), dims, order));
      if (order.needed.size() > before) order.needed.back().is_layers_matrix = !spec.must_be_f32;
    }
  }
  if (!order.spec.head_rows.empty()) {
    RENGA_RETURN_IF_ERROR(need_all(model::OutputNormTensor(config)));
    // Pieces that the embedding brings are needed once.
    const bool brought = config.tied_output && order.spec.embedding;
    // Scattered rows need most pieces of what lies between them.
    const model::BlockRows rows =
        model::BlockRows::At(order.spec.head_rows, order.limits.near_rows.get(), config.vocab_size);
    RENGA_RETURN_IF_ERROR(
        Need(model::OutputTensor(config), brought ? model::Range{} : rows.range(), dims, order));
  }
  return order.spec.embedding ? need_all(model::EmbeddingTensor(config)) : absl::OkStatus();
}

absl::StatusOr<RoutePeer> ReadPeer(const proto::Peer& peer) {
  if (peer.address().size() > kMaxAddressBytes) return Wrong("a peer's address is too long");
  if (!absl::StartsWith(peer.address(), "inproc:")) {
    RENGA_RETURN_IF_ERROR(transport::ParseHostPort(peer.address()).status());
  }
  return RoutePeer{.worker_index = peer.worker_index(),
                   .address = {.address = peer.address(), .name = peer.worker_id()}};
}

absl::Status ReadGroup(const proto::LoadRequest& request, LoadOrder& order) {
  if (request.has_group() != request.has_slice()) return Wrong("a slice without a group");
  if (!request.has_group()) return absl::OkStatus();
  const proto::Group& message = request.group();
  if (order.spec.layers.empty()) return Wrong("a group without layers");
  if (message.members_size() < 2 ||
      message.members_size() > static_cast<int>(transport::kMaxGroupSize) ||
      message.rank() >= static_cast<uint32_t>(message.members_size())) {
    return Wrong("the group's size or rank makes no sense");
  }
  GroupOrder& group = order.group.emplace();
  group.rank = static_cast<int>(message.rank());
  group.sums_on_cards = message.sums_on_cards();
  for (const proto::Peer& member : message.members()) {
    RENGA_ASSIGN_OR_RETURN(RoutePeer peer, ReadPeer(member));
    group.members.push_back(std::move(peer.address));
  }
  return absl::OkStatus();
}

// Where the embedding's rows go.
absl::Status ReadFirstStage(const proto::LoadRequest& request, LoadOrder& order) {
  if (request.embedding() == request.first_stage().empty()) {
    return Wrong("the embedding and a first stage to send its rows to come together");
  }
  if (request.first_stage_size() > static_cast<int>(transport::kMaxGroupSize)) {
    return Wrong("the first stage has too many members");
  }
  for (const proto::Peer& member : request.first_stage()) {
    RENGA_ASSIGN_OR_RETURN(order.routes.first_stage.emplace_back(), ReadPeer(member));
    if (member.worker_index() == order.worker_index && order.spec.layers.empty()) {
      return Wrong("this worker is in the first stage but has no layers");
    }
  }
  return absl::OkStatus();
}

absl::Status ReadRoutes(const proto::LoadRequest& request, LoadOrder& order) {
  RENGA_RETURN_IF_ERROR(ReadFirstStage(request, order));
  if (request.next_stage_size() > static_cast<int>(transport::kMaxGroupSize)) {
    return Wrong("the next stage has too many members");
  }
  for (const proto::Peer& next : request.next_stage()) {
    RENGA_ASSIGN_OR_RETURN(order.routes.next_stage.emplace_back(), ReadPeer(next));
    if (next.worker_index() == order.worker_index) return Wrong("a stage is its own next stage");
  }
  if (request.heads_size() > kMaxHeads) return Wrong("too many head blocks");
  absl::flat_hash_set<uint32_t> owners;
  for (const proto::Peer& head : request.heads()) {
    RENGA_ASSIGN_OR_RETURN(RoutePeer peer, ReadPeer(head));
    if (!owners.insert(peer.worker_index).second)
      return Wrong("a head block's owner is there twice");
    if (peer.worker_index == order.worker_index && order.spec.head_rows.empty()) {
      return Wrong("this worker is to answer for a head block it does not hold");
    }
    order.routes.heads.push_back(std::move(peer));
  }
  if (order.spec.layers.empty()) return absl::OkStatus();
  const bool next = !order.routes.next_stage.empty();
  const bool heads = !order.routes.heads.empty();
  if ((next && heads) || (!next && !heads && !order.group.has_value())) {
    return Wrong("a stage has either a next stage or head blocks after it");
  }
  return absl::OkStatus();
}

absl::Status ReadHolders(const proto::LoadRequest& request, LoadOrder& order) {
  if (request.piece_holders_size() > kMaxHolders) return Wrong("too many workers hold pieces");
  for (const proto::PieceHolder& holder : request.piece_holders()) {
    if (holder.address().size() > kMaxAddressBytes ||
        holder.tensors_size() > request.manifest().tensors_size()) {
      return Wrong("a holder of pieces with too long an address or too many tensors");
    }
    RENGA_RETURN_IF_ERROR(transport::ParseHostPort(holder.address()).status());
    order.piece_holders.push_back(
        {.address = {.address = holder.address(), .name = holder.worker_id()},
         .tensors = {holder.tensors().begin(), holder.tensors().end()}});
  }
  return absl::OkStatus();
}

}  // namespace

int64_t LoadOrder::PieceSize(const ShippedTensor& tensor, uint32_t piece) {
  const int64_t begin = int64_t{piece} * transport::kPieceBytes;
  return std::min(transport::kPieceBytes, tensor.byte_size - begin);
}

absl::StatusOr<LoadOrder> FromProto(const proto::LoadRequest& request) {
  LoadOrder order;
  if (request.epoch() == 0) return Wrong("epochs begin at 1");
  order.epoch = request.epoch();
  order.worker_index = request.worker_index();
  absl::flat_hash_map<std::string, std::vector<int64_t>> dims;
  RENGA_RETURN_IF_ERROR(ReadManifest(request.manifest(), order, dims));
  RENGA_RETURN_IF_ERROR(ReadSpec(request, order));
  RENGA_RETURN_IF_ERROR(CheckTensors(dims, order));
  RENGA_RETURN_IF_ERROR(ReadGroup(request, order));
  RENGA_RETURN_IF_ERROR(ReadRoutes(request, order));
  RENGA_RETURN_IF_ERROR(ReadHolders(request, order));
  return order;
}

}  // namespace renga::worker

#include "worker/service/shipped_weights.h"

#include <algorithm>
#include <cstring>
#include <utility>

#include "absl/container/flat_hash_set.h"
#include "absl/strings/str_cat.h"
#include "base/content_hash.h"
#include "base/log.h"
#include "base/status_macros.h"
#include "transport/dialer.h"

namespace renga::worker {
namespace {

using transport::kPieceBytes;

bool IsPiece(const ShippedTensor& tensor, uint32_t piece, std::span<const std::byte> bytes) {
  return base::HashBytes(bytes) == tensor.pieces[piece];
}

absl::Status NothingIsKept() {
  return absl::FailedPreconditionError("this worker keeps nothing on disk (--no-packed-cache)");
}

class CachedMatrix : public engine::PackedFile {
 public:
  CachedMatrix(PackedCache* cache, const PackedId& id, int64_t bytes)
      : cache_(cache), id_(id), bytes_(bytes) {}
  void Prefetch() override { cache_->Prefetch(id_); }
  absl::Status Read(std::span<std::byte> room) override {
    return cache_->ReadInto(id_, bytes_, room);
  }
  // Mapped, as an eager shard has it: the system's memory for files needs no clearing first, and
  // the next start finds it there.
  absl::StatusOr<kernels::PackedBytes> Hold() override {
    std::optional<kernels::PackedBytes> found = cache_->Find(id_, bytes_);
    if (!found.has_value()) return absl::DataLossError("the packed matrix is gone or damaged");
    return *std::move(found);
  }

 private:
  PackedCache* const cache_;
  const PackedId id_;
  const int64_t bytes_;
};

}  // namespace

PackedId PackedIdOf(const LoadOrder& order, const engine::MatrixKey& key) {
  return {.tensor = order.tensors.at(key.tensor).index,
          .type = key.type,
          .rows = key.rows,
          .columns = key.columns};
}

ShippedWeights::ShippedWeights(const LoadOrder* order, const Places& places)
    : order_(order),
      local_model_(places.local_model),
      lazy_(places.lazy),
      screen_(places.screen),
      packed_(places.packed),
      cache_(places.cache_directory, order->model_id),
      in_order_(order, places.channels),
      chosen_(order, places.channels),
      spare_(order, places.channels) {
  for (const auto& [name, tensor] : order_->tensors) {
    tensors_[tensor.index] = &tensor;
    names_[tensor.index] = &name;
  }
  std::vector<NeededPieces> in_order = order_->needed;
  if (lazy_) {
    std::stable_partition(in_order.begin(), in_order.end(),
                          [](const NeededPieces& needed) { return !needed.is_layers_matrix; });
  }
  for (const NeededPieces& needed : in_order) {
    const ShippedTensor& tensor = order_->tensors.at(needed.tensor);
    if (ComesWhenChosen(tensor)) continue;
    position_[tensor.index] = sequence_.size() - needed.first;  // may wrap; undone by the piece
    for (uint32_t i = 0; i < needed.count; ++i) {
      sequence_.push_back({.tensor = tensor.index, .piece = needed.first + i});
    }
  }
}

void ShippedWeights::Cancel() {
  for (PieceSuppliers* road : {&in_order_, &chosen_, &spare_}) road->SetCancelled(true);
}

void ShippedWeights::Resume() {
  for (PieceSuppliers* road : {&in_order_, &chosen_, &spare_}) road->SetCancelled(false);
}

void ShippedWeights::CancelBringing() { spare_.SetCancelled(true); }

bool ShippedWeights::ComesWhenChosen(const ShippedTensor& tensor) const {
  return lazy_ && tensor.of_experts;
}

absl::StatusOr<base::DataType> ShippedWeights::TensorType(const std::string& name) {
  const auto found = order_->tensors.find(name);
  if (found == order_->tensors.end()) {
    return absl::NotFoundError(absl::StrCat("the manifest has no tensor ", name));
  }
  return found->second.type;
}

std::optional<kernels::PackedBytes> ShippedWeights::FindPacked(const engine::MatrixKey& key,
                                                               int64_t bytes) {
  std::optional<kernels::PackedBytes> found = packed_->Find(PackedIdOf(*order_, key), bytes);
  if (found.has_value()) cached_bytes_ += bytes;
  return found;
}

std::unique_ptr<engine::PackedFile> ShippedWeights::OpenPacked(const engine::MatrixKey& key,
                                                               int64_t bytes) {
  const PackedId id = PackedIdOf(*order_, key);
  if (!packed_->Has(id, bytes)) return nullptr;
  cached_bytes_ += bytes;
  return std::make_unique<CachedMatrix>(packed_, id, bytes);
}

absl::Status ShippedWeights::KeepPacked(const engine::MatrixKey& key,
                                        std::span<const std::byte> bytes) {
  if (!packed_->enabled()) {
    return NothingIsKept();
  }
  const PackedId id = PackedIdOf(*order_, key);
  const auto keep = [&] { return packed_->Keep(id, bytes, [] { return false; }); };
  absl::Status kept = keep();
  if (absl::IsResourceExhausted(kept)) {
    absl::MutexLock lock(&mutex_);
    if (cache_.GiveWay()) kept = keep();
  }
  RENGA_RETURN_IF_ERROR(kept);
  {
    absl::MutexLock lock(&mutex_);
    to_keep_ = std::max<int64_t>(0, to_keep_ - static_cast<int64_t>(bytes.size()));
    cache_.LeaveRoom(to_keep_);
  }
  // It is read past the page cache.
  packed_->DropPages(id);
  return absl::OkStatus();
}

absl::Status ShippedWeights::PlanToKeep(int64_t bytes) {
  if (!packed_->enabled()) return NothingIsKept();
  absl::Status room = packed_->CheckRoom(bytes);
  absl::MutexLock lock(&mutex_);
  if (absl::IsResourceExhausted(room) && cache_.GiveWay()) room = packed_->CheckRoom(bytes);
  RENGA_RETURN_IF_ERROR(room);
  to_keep_ = bytes;
  cache_.LeaveRoom(to_keep_);
  return absl::OkStatus();
}

absl::Status ShippedWeights::Read(const std::string& name, int64_t offset,
                                  std::span<std::byte> out) {
  const auto found = order_->tensors.find(name);
  if (found == order_->tensors.end()) {
    return absl::NotFoundError(absl::StrCat("the manifest has no tensor ", name));
  }
  const ShippedTensor& tensor = found->second;
  if (offset < 0 || offset > tensor.byte_size ||
      static_cast<int64_t>(out.size()) > tensor.byte_size - offset) {
    return absl::OutOfRangeError(absl::StrCat("tensor ", name, " ends before that"));
  }
  while (!out.empty()) {
    const auto piece = static_cast<uint32_t>(offset / kPieceBytes);
    const auto piece_bytes = static_cast<size_t>(LoadOrder::PieceSize(tensor, piece));
    const auto begin = static_cast<size_t>(offset % kPieceBytes);
    const size_t count = std::min(out.size(), piece_bytes - begin);
    if (count == piece_bytes) {
      RENGA_RETURN_IF_ERROR(LoadPiece(name, tensor, piece, out.first(count)));
    } else {
      absl::MutexLock lock(&part_mutex_);
      RENGA_RETURN_IF_ERROR(KeepPiece(name, tensor, piece));
      std::memcpy(out.data(), piece_.data() + begin, count);
    }
    out = out.subspan(count);
    offset += static_cast<int64_t>(count);
  }
  return absl::OkStatus();
}

absl::Status ShippedWeights::KeepPiece(const std::string& name, const ShippedTensor& tensor,
                                       uint32_t piece) {
  const PieceId id = {.tensor = tensor.index, .piece = piece};
  if (piece_valid_ && piece_id_ == id) return absl::OkStatus();
  piece_valid_ = false;
  piece_.resize(static_cast<size_t>(LoadOrder::PieceSize(tensor, piece)));
  RENGA_RETURN_IF_ERROR(LoadPiece(name, tensor, piece, std::span(piece_)));
  piece_id_ = id;
  piece_valid_ = true;
  return absl::OkStatus();
}

absl::Status ShippedWeights::LoadPiece(const std::string& name, const ShippedTensor& tensor,
                                       uint32_t piece, std::span<std::byte> out) {
  const auto bytes = static_cast<int64_t>(out.size());
  if (ReadLocal(name, tensor, piece, out) || ReadCached(tensor, piece, out)) {
    cached_bytes_ += bytes;
  } else {
    RENGA_RETURN_IF_ERROR(base::Annotate(Fetch(tensor, piece, out), absl::StrCat("tensor ", name)));
    fetched_bytes_ += bytes;
    WriteCached({.tensor = tensor.index, .piece = piece}, out);
  }
  read_bytes_ += bytes;
  return absl::OkStatus();
}

bool ShippedWeights::ReadLocal(const std::string& name, const ShippedTensor& tensor, uint32_t piece,
                               std::span<std::byte> out) {
  if (local_model_ == nullptr || IsForeign(name) || !local_model_->Has(name, tensor.byte_size)) {
    return false;
  }
  if (local_model_->Read(name, int64_t{piece} * kPieceBytes, out).ok() &&
      IsPiece(tensor, piece, out)) {
    return true;
  }
  absl::MutexLock lock(&foreign_mutex_);
  if (foreign_.empty()) {
    RENGA_LOG(WARNING) << "the local copy of the model is another one or damaged (" << name
                       << "); fetching what differs";
  }
  foreign_.insert(name);
  return false;
}

bool ShippedWeights::IsForeign(const std::string& name) const {
  absl::MutexLock lock(&foreign_mutex_);
  return foreign_.contains(name);
}

bool ShippedWeights::ReadCached(const ShippedTensor& tensor, uint32_t piece,
                                std::span<std::byte> out) {
  absl::MutexLock lock(&mutex_);
  if (!cache_.MayHave(tensor.index, piece)) return false;
  const absl::Status status = cache_.Read(tensor.index, piece, out);
  if (status.ok() && IsPiece(tensor, piece, out)) return true;
  RENGA_LOG(WARNING) << "piece " << piece << " of tensor " << tensor.index
                     << " is damaged in the cache; fetching it again";
  cache_.Forget(tensor.index, piece);
  return false;
}

void ShippedWeights::WriteCached(const PieceId& piece, std::span<const std::byte> bytes) {
  absl::MutexLock lock(&mutex_);
  cache_.Write(piece.tensor, piece.piece, bytes);
}

bool ShippedWeights::IsHere(const PieceId& piece) {
  const std::string& name = *names_.at(piece.tensor);
  const bool local = local_model_ != nullptr && !IsForeign(name) &&
                     local_model_->Has(name, tensors_.at(piece.tensor)->byte_size);
  return local || cache_.MayHave(piece.tensor, piece.piece);
}

void ShippedWeights::TakeLacking(std::span<const PieceId> pieces,
                                 absl::FunctionRef<bool(const PieceId&)> take) {
  for (const PieceId& piece : pieces) {
    bool here = false;
    {
      absl::MutexLock lock(&mutex_);
      here = IsHere(piece);
    }
    if (!here && !take(piece)) return;
  }
}

absl::Status ShippedWeights::Fetch(const ShippedTensor& tensor, uint32_t piece,
                                   std::span<std::byte> out) {
  if (ComesWhenChosen(tensor)) return FetchChosen(tensor, piece, out);
  const auto found = position_.find(tensor.index);
  const size_t next = found == position_.end() ? sequence_.size() : found->second + piece + 1;
  const auto rest = std::span<const PieceId>(sequence_).subspan(next);
  return in_order_.Fetch(
      tensor, piece, [&](auto take) { TakeLacking(rest, take); }, out);
}

absl::Status ShippedWeights::FetchChosen(const ShippedTensor& tensor, uint32_t piece,
                                         std::span<std::byte> out) {
  std::shared_ptr<const std::vector<PieceId>> expected;
  std::span<const PieceId> rest;  // of what was not announced nobody knows what follows
  {
    absl::MutexLock lock(&expected_mutex_);
    expected = expected_;
    if (expected != nullptr) {
      const auto pending = std::span<const PieceId>(*expected).subspan(expected_done_);
      const auto found = std::find(pending.begin(), pending.end(),
                                   PieceId{.tensor = tensor.index, .piece = piece});
      if (found != pending.end()) {
        rest = pending.subspan(static_cast<size_t>(found - pending.begin()) + 1);
        expected_done_ = expected->size() - rest.size();
      }
    }
  }
  return chosen_.Fetch(
      tensor, piece, [&](auto take) { TakeLacking(rest, take); }, out);
}

std::vector<PieceId> ShippedWeights::PiecesOf(const engine::MatrixKey& matrix) const {
  const ShippedTensor& tensor = order_->tensors.at(matrix.tensor);
  // By its share of the tensor's rows: the order's shapes have been checked.
  const int64_t row_bytes = tensor.byte_size / tensor.rows;
  const auto first = static_cast<uint32_t>(matrix.rows.begin * row_bytes / kPieceBytes);
  const auto last = static_cast<uint32_t>((matrix.rows.end * row_bytes - 1) / kPieceBytes);
  std::vector<PieceId> pieces;
  for (uint32_t piece = first; piece <= last; ++piece) {
    pieces.push_back({.tensor = tensor.index, .piece = piece});
  }
  return pieces;
}

std::vector<PieceId> ShippedWeights::Lacking(std::span<const engine::MatrixKey> matrices) {
  std::vector<PieceId> lacking;
  absl::flat_hash_set<std::pair<uint32_t, uint32_t>> seen;
  for (const engine::MatrixKey& matrix : matrices) {
    TakeLacking(PiecesOf(matrix), [&](const PieceId& piece) {
      if (seen.insert({piece.tensor, piece.piece}).second) lacking.push_back(piece);
      return true;
    });
  }
  return lacking;
}

void ShippedWeights::Expect(std::span<const engine::MatrixKey> next) {
  const auto expected = std::make_shared<const std::vector<PieceId>>(Lacking(next));
  {
    absl::MutexLock lock(&expected_mutex_);
    expected_ = expected;
    expected_done_ = 0;
  }
  if (expected->empty()) return;
  const PieceId& first = expected->front();
  const auto rest = std::span<const PieceId>(*expected).subspan(1);
  chosen_.Ask(*tensors_.at(first.tensor), first.piece, [&](auto take) { TakeLacking(rest, take); });
}

int64_t ShippedWeights::SizeOf(const PieceId& piece) const {
  return LoadOrder::PieceSize(*tensors_.at(piece.tensor), piece.piece);
}

absl::Status ShippedWeights::Bring(std::span<const PieceId> pieces) {
  const PieceId& piece = pieces.front();
  {
    absl::MutexLock lock(&mutex_);
    if (IsHere(piece)) return absl::OkStatus();
    if (!cache_.keeps()) return absl::ResourceExhaustedError("the disk takes no more pieces");
  }
  std::vector<std::byte> bytes(static_cast<size_t>(SizeOf(piece)));
  RENGA_RETURN_IF_ERROR(spare_.Fetch(
      *tensors_.at(piece.tensor), piece.piece,
      [&](auto take) { TakeLacking(pieces.subspan(1), take); }, bytes));
  fetched_bytes_ += static_cast<int64_t>(bytes.size());
  WriteCached(piece, bytes);
  return absl::OkStatus();
}

}  // namespace renga::worker

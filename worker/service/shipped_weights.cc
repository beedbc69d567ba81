#include "worker/service/shipped_weights.h"

#include <algorithm>
#include <cstring>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "base/content_hash.h"
#include "base/log.h"
#include "base/status_macros.h"
#include "transport/dialer.h"

namespace renga::worker {
namespace {

using transport::kPieceBytes;

// A stream that breaks is opened again at the piece where it broke; this often in a row without a
// single piece.
constexpr int kFetchAttempts = 5;
constexpr absl::Duration kFirstFetchRetryDelay = absl::Milliseconds(100);
// Another worker is asked for so many pieces at a time, and when they do not come meanwhile the
// coordinator is: before it gives up on a load that does not go on.
constexpr size_t kHolderPieces = 16;
constexpr absl::Duration kHolderPatience = absl::Seconds(15);

bool IsPiece(const ShippedTensor& tensor, uint32_t piece, std::span<const std::byte> bytes) {
  return base::HashBytes(bytes) == tensor.pieces[piece];
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
      screen_(places.screen),
      packed_(places.packed),
      cache_(places.cache_directory, order->model_id) {
  for (size_t i = 0; i < std::min(places.holders.size(), order->piece_holders.size()); ++i) {
    const PieceHolder& holder = order->piece_holders[i];
    suppliers_.push_back(
        {.fetcher = std::make_unique<PieceFetcher>(places.holders[i], order->model_id),
         .holder = &holder,
         .tensors = {holder.tensors.begin(), holder.tensors.end()}});
  }
  suppliers_.push_back(
      {.fetcher = std::make_unique<PieceFetcher>(places.coordinator, order->model_id),
       .tensors = {}});
  for (const NeededPieces& needed : order_->needed) {
    const uint32_t index = order_->tensors.at(needed.tensor).index;
    position_[index] = sequence_.size() - needed.first;  // may wrap; undone by adding the piece
    for (uint32_t i = 0; i < needed.count; ++i) {
      sequence_.push_back(
          {.id = {.tensor = index, .piece = needed.first + i}, .tensor_name = &needed.tensor});
    }
  }
}

void ShippedWeights::Cancel() {
  for (Supplier& supplier : suppliers_) supplier.fetcher->Cancel();
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
    return absl::FailedPreconditionError("this worker keeps nothing on disk (--no-packed-cache)");
  }
  const PackedId id = PackedIdOf(*order_, key);
  const auto keep = [&] { return packed_->Keep(id, bytes, [] { return false; }); };
  absl::Status kept = keep();
  if (absl::IsResourceExhausted(kept)) {
    absl::MutexLock lock(&mutex_);
    if (cache_.GiveWay()) kept = keep();
  }
  RENGA_RETURN_IF_ERROR(kept);
  // It is read past the page cache.
  packed_->DropPages(id);
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
  if (ReadLocal(name, tensor, piece, out)) {
    cached_bytes_ += static_cast<int64_t>(out.size());
    return absl::OkStatus();
  }
  absl::MutexLock lock(&mutex_);
  if (ReadCached(tensor, piece, out)) {
    cached_bytes_ += static_cast<int64_t>(out.size());
    return absl::OkStatus();
  }
  RENGA_RETURN_IF_ERROR(base::Annotate(Fetch(tensor, piece, out), absl::StrCat("tensor ", name)));
  fetched_bytes_ += static_cast<int64_t>(out.size());
  cache_.Write(tensor.index, piece, out);
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
  if (!cache_.MayHave(tensor.index, piece)) return false;
  const absl::Status status = cache_.Read(tensor.index, piece, out);
  if (status.ok() && IsPiece(tensor, piece, out)) return true;
  RENGA_LOG(WARNING) << "piece " << piece << " of tensor " << tensor.index
                     << " is damaged in the cache; fetching it again";
  cache_.Forget(tensor.index, piece);
  return false;
}

ShippedWeights::Supplier& ShippedWeights::SupplierOf(uint32_t tensor) {
  return *std::find_if(suppliers_.begin(), suppliers_.end(), [&](const Supplier& supplier) {
    return supplier.holder == nullptr || supplier.tensors.contains(tensor);
  });
}

absl::Status ShippedWeights::Fetch(const ShippedTensor& tensor, uint32_t piece,
                                   std::span<std::byte> out) {
  while (true) {
    Supplier& supplier = SupplierOf(tensor.index);
    if (supplier.holder == nullptr) return FetchFromCoordinator(tensor, piece, out);
    const bool under_way = supplier.fetcher->Expected() != nullptr;
    const absl::Status status = FetchOnce(supplier, tensor, piece, out);
    if (status.ok() || absl::IsCancelled(status)) return status;
    if (absl::IsNotFound(status)) {
      supplier.tensors.erase(tensor.index);
      continue;
    }
    // Of a shard that loads while it answers nobody reads for long.
    if (under_way && absl::IsDeadlineExceeded(status)) continue;
    RENGA_LOG(WARNING) << "asking the coordinator for pieces that the worker at "
                       << supplier.holder->address.address << " may keep: " << status.message();
    supplier.tensors.clear();
  }
}

absl::Status ShippedWeights::FetchFromCoordinator(const ShippedTensor& tensor, uint32_t piece,
                                                  std::span<std::byte> out) {
  absl::Status status;
  absl::Duration delay = kFirstFetchRetryDelay;
  for (int attempt = 0; attempt < kFetchAttempts; ++attempt) {
    if (attempt > 0) {
      absl::SleepFor(delay);
      delay *= 2;
    }
    status = FetchOnce(suppliers_.back(), tensor, piece, out);
    if (!absl::IsUnavailable(status)) return status;
  }
  return status;
}

absl::Status ShippedWeights::FetchOnce(Supplier& supplier, const ShippedTensor& tensor,
                                       uint32_t piece, std::span<std::byte> out) {
  const PieceId id = {.tensor = tensor.index, .piece = piece};
  PieceFetcher& fetcher = *supplier.fetcher;
  const PieceId* expected = fetcher.Expected();
  if (expected == nullptr || *expected != id) {
    fetcher.Begin(WantedFrom(id, supplier), supplier.holder == nullptr
                                                ? absl::InfiniteFuture()
                                                : absl::Now() + kHolderPatience);
  }
  RENGA_ASSIGN_OR_RETURN(const std::string data, fetcher.Next());
  if (data.size() != out.size()) {
    return absl::DataLossError(
        absl::StrCat("piece ", piece, " came with ", data.size(), " bytes, not ", out.size()));
  }
  std::memcpy(out.data(), data.data(), data.size());
  if (!IsPiece(tensor, piece, out)) {
    return absl::DataLossError(
        absl::StrCat("piece ", piece,
                     " came with other bytes than the manifest says: has the model file "
                     "changed under the coordinator?"));
  }
  return absl::OkStatus();
}

std::vector<PieceId> ShippedWeights::WantedFrom(PieceId first, const Supplier& supplier) {
  const size_t most = supplier.holder == nullptr ? sequence_.size() : kHolderPieces;
  std::vector<PieceId> wanted = {first};
  const auto found = position_.find(first.tensor);
  if (found == position_.end()) return wanted;
  for (size_t i = found->second + first.piece + 1; i < sequence_.size() && wanted.size() < most;
       ++i) {
    const OrderedPiece& next = sequence_[i];
    if (&SupplierOf(next.id.tensor) != &supplier) continue;
    const ShippedTensor& tensor = order_->tensors.at(*next.tensor_name);
    const bool local = local_model_ != nullptr && !IsForeign(*next.tensor_name) &&
                       local_model_->Has(*next.tensor_name, tensor.byte_size);
    if (!local && !cache_.MayHave(next.id.tensor, next.id.piece)) wanted.push_back(next.id);
  }
  return wanted;
}

}  // namespace renga::worker

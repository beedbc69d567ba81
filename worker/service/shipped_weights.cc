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

}  // namespace

ShippedWeights::ShippedWeights(const LoadOrder* order, const Places& places)
    : order_(order),
      local_model_(places.local_model),
      cache_(places.cache_directory, order->model_id),
      fetcher_(places.coordinator, order->model_id) {
  for (const NeededPieces& needed : order_->needed) {
    const uint32_t index = order_->tensors.at(needed.tensor).index;
    position_[index] = sequence_.size() - needed.first;  // may wrap; undone by adding the piece
    for (uint32_t i = 0; i < needed.count; ++i) {
      sequence_.push_back(
          {.id = {.tensor = index, .piece = needed.first + i}, .tensor_name = &needed.tensor});
    }
  }
}

absl::StatusOr<base::DataType> ShippedWeights::TensorType(const std::string& name) {
  const auto found = order_->tensors.find(name);
  if (found == order_->tensors.end()) {
    return absl::NotFoundError(absl::StrCat("the manifest has no tensor ", name));
  }
  return found->second.type;
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
    RENGA_RETURN_IF_ERROR(LoadPiece(name, tensor, piece));
    const auto begin = static_cast<size_t>(offset % kPieceBytes);
    const size_t count = std::min(out.size(), piece_.size() - begin);
    std::memcpy(out.data(), piece_.data() + begin, count);
    out = out.subspan(count);
    offset += static_cast<int64_t>(count);
  }
  return absl::OkStatus();
}

absl::Status ShippedWeights::LoadPiece(const std::string& name, const ShippedTensor& tensor,
                                       uint32_t piece) {
  const PieceId id = {.tensor = tensor.index, .piece = piece};
  if (piece_valid_ && piece_id_ == id) return absl::OkStatus();
  piece_valid_ = false;
  piece_.resize(static_cast<size_t>(LoadOrder::PieceSize(tensor, piece)));
  if (ReadLocal(name, tensor, piece) || ReadCached(tensor, piece)) {
    cached_bytes_ += static_cast<int64_t>(piece_.size());
  } else {
    RENGA_RETURN_IF_ERROR(base::Annotate(Fetch(tensor, piece), absl::StrCat("tensor ", name)));
    fetched_bytes_ += static_cast<int64_t>(piece_.size());
    cache_.Write(tensor.index, piece, piece_);
  }
  piece_id_ = id;
  piece_valid_ = true;
  return absl::OkStatus();
}

bool ShippedWeights::IsPiece(const ShippedTensor& tensor, uint32_t piece) const {
  return base::HashBytes(piece_) == tensor.pieces[piece];
}

bool ShippedWeights::ReadLocal(const std::string& name, const ShippedTensor& tensor,
                               uint32_t piece) {
  if (local_model_ == nullptr || foreign_.contains(name) ||
      !local_model_->Has(name, tensor.byte_size)) {
    return false;
  }
  if (local_model_->Read(name, int64_t{piece} * kPieceBytes, piece_).ok() &&
      IsPiece(tensor, piece)) {
    return true;
  }
  if (foreign_.empty()) {
    RENGA_LOG(WARNING) << "the local copy of the model is another one or damaged (" << name
                       << "); fetching what differs";
  }
  foreign_.insert(name);
  return false;
}

bool ShippedWeights::ReadCached(const ShippedTensor& tensor, uint32_t piece) {
  if (!cache_.MayHave(tensor.index, piece)) return false;
  const absl::Status status = cache_.Read(tensor.index, piece, piece_);
  if (status.ok() && IsPiece(tensor, piece)) return true;
  RENGA_LOG(WARNING) << "piece " << piece << " of tensor " << tensor.index
                     << " is damaged in the cache; fetching it again";
  cache_.Forget(tensor.index, piece);
  return false;
}

absl::Status ShippedWeights::Fetch(const ShippedTensor& tensor, uint32_t piece) {
  absl::Status status;
  absl::Duration delay = kFirstFetchRetryDelay;
  for (int attempt = 0; attempt < kFetchAttempts; ++attempt) {
    if (attempt > 0) {
      absl::SleepFor(delay);
      delay *= 2;
    }
    status = FetchOnce(tensor, piece);
    if (!absl::IsUnavailable(status)) return status;
  }
  return status;
}

absl::Status ShippedWeights::FetchOnce(const ShippedTensor& tensor, uint32_t piece) {
  const PieceId id = {.tensor = tensor.index, .piece = piece};
  const PieceId* expected = fetcher_.Expected();
  if (expected == nullptr || *expected != id) fetcher_.Begin(WantedFrom(id));
  RENGA_ASSIGN_OR_RETURN(const std::string data, fetcher_.Next());
  if (data.size() != piece_.size()) {
    return absl::DataLossError(
        absl::StrCat("piece ", piece, " came with ", data.size(), " bytes, not ", piece_.size()));
  }
  std::memcpy(piece_.data(), data.data(), data.size());
  if (!IsPiece(tensor, piece)) {
    return absl::DataLossError(
        absl::StrCat("piece ", piece,
                     " came with other bytes than the manifest says: has the model file "
                     "changed under the coordinator?"));
  }
  return absl::OkStatus();
}

std::vector<PieceId> ShippedWeights::WantedFrom(PieceId first) {
  std::vector<PieceId> wanted = {first};
  const auto found = position_.find(first.tensor);
  if (found == position_.end()) return wanted;
  for (size_t i = found->second + first.piece + 1; i < sequence_.size(); ++i) {
    const OrderedPiece& next = sequence_[i];
    const ShippedTensor& tensor = order_->tensors.at(*next.tensor_name);
    const bool local = local_model_ != nullptr && !foreign_.contains(*next.tensor_name) &&
                       local_model_->Has(*next.tensor_name, tensor.byte_size);
    if (!local && !cache_.MayHave(next.id.tensor, next.id.piece)) wanted.push_back(next.id);
  }
  return wanted;
}

}  // namespace renga::worker

#include "worker/service/piece_suppliers.h"

#include <algorithm>
#include <cstring>
#include <limits>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "base/content_hash.h"
#include "base/log.h"
#include "base/status_macros.h"

namespace renga::worker {
namespace {

// A stream that breaks is opened again at the piece where it broke; this often in a row without a
// single piece.
constexpr int kFetchAttempts = 5;
constexpr absl::Duration kFirstFetchRetryDelay = absl::Milliseconds(100);
// Another worker is asked for so many pieces at a time.
constexpr size_t kHolderPieces = 16;
// A connection that is lost is noticed sooner (transport/dialer.cc). This is for one that is there
// and brings nothing: less than the coordinator waits before it gives up on a load that does not go
// on.
constexpr absl::Duration kPiecePatience = absl::Seconds(15);

}  // namespace

PieceSuppliers::PieceSuppliers(const LoadOrder* order, const Channels& channels) {
  for (size_t i = 0; i < std::min(channels.holders.size(), order->piece_holders.size()); ++i) {
    const PieceHolder& holder = order->piece_holders[i];
    suppliers_.push_back(
        {.fetcher = std::make_unique<PieceFetcher>(channels.holders[i], order->model_id),
         .holder = &holder,
         .tensors = {holder.tensors.begin(), holder.tensors.end()}});
  }
  suppliers_.push_back(
      {.fetcher = std::make_unique<PieceFetcher>(channels.coordinator, order->model_id),
       .tensors = {}});
}

void PieceSuppliers::SetCancelled(bool cancelled) {
  for (Supplier& supplier : suppliers_) supplier.fetcher->SetCancelled(cancelled);
}

PieceSuppliers::Supplier& PieceSuppliers::SupplierOf(uint32_t tensor) {
  return *std::find_if(suppliers_.begin(), suppliers_.end(), [&](const Supplier& supplier) {
    return supplier.holder == nullptr || supplier.tensors.contains(tensor);
  });
}

absl::Status PieceSuppliers::Fetch(const ShippedTensor& tensor, uint32_t piece, Following following,
                                   std::span<std::byte> out) {
  absl::MutexLock lock(&mutex_);
  while (true) {
    Supplier& supplier = SupplierOf(tensor.index);
    if (supplier.holder == nullptr) return FetchFromCoordinator(tensor, piece, following, out);
    const absl::Status status = FetchOnce(supplier, tensor, piece, following, out);
    if (status.ok() || absl::IsCancelled(status)) return status;
    if (absl::IsNotFound(status)) {
      supplier.tensors.erase(tensor.index);
      continue;
    }
    RENGA_LOG(WARNING) << "asking the coordinator for pieces that the worker at "
                       << supplier.holder->address.address << " may keep: " << status.message();
    supplier.tensors.clear();
  }
}

absl::Status PieceSuppliers::FetchFromCoordinator(const ShippedTensor& tensor, uint32_t piece,
                                                  Following following, std::span<std::byte> out) {
  absl::Status status;
  absl::Duration delay = kFirstFetchRetryDelay;
  for (int attempt = 0; attempt < kFetchAttempts; ++attempt) {
    if (attempt > 0) {
      absl::SleepFor(delay);
      delay *= 2;
    }
    status = FetchOnce(suppliers_.back(), tensor, piece, following, out);
    if (!absl::IsUnavailable(status)) break;
  }
  return absl::IsDeadlineExceeded(status)
             ? base::Annotate(status, "the coordinator is there but ships nothing")
             : status;
}

absl::Status PieceSuppliers::FetchOnce(Supplier& supplier, const ShippedTensor& tensor,
                                       uint32_t piece, Following following,
                                       std::span<std::byte> out) {
  AskOnce(supplier, {.tensor = tensor.index, .piece = piece}, following);
  RENGA_ASSIGN_OR_RETURN(const std::string data, supplier.fetcher->Next(kPiecePatience));
  if (data.size() != out.size()) {
    return absl::DataLossError(
        absl::StrCat("piece ", piece, " came with ", data.size(), " bytes, not ", out.size()));
  }
  std::memcpy(out.data(), data.data(), data.size());
  if (base::HashBytes(std::span<const std::byte>(out)) != tensor.pieces[piece]) {
    return absl::DataLossError(
        absl::StrCat("piece ", piece,
                     " came with other bytes than the manifest says: has the model file "
                     "changed under the coordinator?"));
  }
  return absl::OkStatus();
}

void PieceSuppliers::Ask(const ShippedTensor& tensor, uint32_t piece, Following following) {
  absl::MutexLock lock(&mutex_);
  AskOnce(SupplierOf(tensor.index), {.tensor = tensor.index, .piece = piece}, following);
}

void PieceSuppliers::AskOnce(Supplier& supplier, const PieceId& first, Following following) {
  const PieceId* const expected = supplier.fetcher->Expected();
  if (expected != nullptr && *expected == first) return;
  const size_t most =
      supplier.holder == nullptr ? std::numeric_limits<size_t>::max() : kHolderPieces;
  std::vector<PieceId> wanted = {first};
  following([&](const PieceId& next) ABSL_NO_THREAD_SAFETY_ANALYSIS {
    if (&SupplierOf(next.tensor) == &supplier) wanted.push_back(next);
    return wanted.size() < most;
  });
  supplier.fetcher->Begin(wanted);
}

}  // namespace renga::worker

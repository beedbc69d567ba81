// Who sends the pieces that this machine lacks: other workers that keep them, and the coordinator,
// which has all. What comes is checked by its hash.
#ifndef RENGA_WORKER_SERVICE_PIECE_SUPPLIERS_H_
#define RENGA_WORKER_SERVICE_PIECE_SUPPLIERS_H_

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/container/flat_hash_set.h"
#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "absl/synchronization/mutex.h"
#include "worker/service/load_order.h"
#include "worker/service/piece_fetcher.h"

namespace renga::worker {

// Thread-safe: one thread fetches at a time, the others wait. Each object has streams of its own,
// so that what is fetched for one purpose neither ends nor waits for another's stream.
class PieceSuppliers {
 public:
  struct Channels {
    std::shared_ptr<grpc::Channel> coordinator;
    // To order->piece_holders, in their order.
    std::vector<std::shared_ptr<grpc::Channel>> holders = {};
  };
  // `order` outlives this.
  PieceSuppliers(const LoadOrder* order, const Channels& channels);

  // The pieces that will be fetched after one, in order: hands them to `take` until it says no.
  using Following = absl::FunctionRef<void(absl::FunctionRef<bool(const PieceId&)> take)>;

  // Fills `out`, of the piece's size. Where it was not on its way it is asked for, together with
  // those that follow it. kUnavailable when the coordinator is needed and stays away,
  // kDeadlineExceeded when it is there and sends nothing, kDataLoss when what it sends is not what
  // its manifest says; kCancelled. Another worker's failures only mean that it is not asked again.
  absl::Status Fetch(const ShippedTensor& tensor, uint32_t piece, Following following,
                     std::span<std::byte> out) ABSL_LOCKS_EXCLUDED(mutex_);
  // The same without waiting for it: its turn comes.
  void Ask(const ShippedTensor& tensor, uint32_t piece, Following following)
      ABSL_LOCKS_EXCLUDED(mutex_);

  // Makes fetches fail, now and until this is taken back. On any thread.
  void SetCancelled(bool cancelled);

 private:
  struct Supplier {
    std::unique_ptr<PieceFetcher> fetcher;
    const PieceHolder* holder = nullptr;  // null: the coordinator, which has all
    // Of a holder, as far as it is still asked for them.
    absl::flat_hash_set<uint32_t> tensors;
  };
  // The holder that is asked for the tensor, or the coordinator.
  Supplier& SupplierOf(uint32_t tensor) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  absl::Status FetchFromCoordinator(const ShippedTensor& tensor, uint32_t piece,
                                    Following following, std::span<std::byte> out)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  absl::Status FetchOnce(Supplier& supplier, const ShippedTensor& tensor, uint32_t piece,
                         Following following, std::span<std::byte> out)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void AskOnce(Supplier& supplier, const PieceId& first, Following following)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  absl::Mutex mutex_;
  // The coordinator last; who they are does not change. `tensors` are guarded by mutex_.
  std::vector<Supplier> suppliers_;
};

}  // namespace renga::worker

#endif  // RENGA_WORKER_SERVICE_PIECE_SUPPLIERS_H_

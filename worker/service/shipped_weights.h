// A shard's weights wherever they are nearest: in a copy of the model on this machine, in the
// on-disk cache, on the disk of another worker, or at the coordinator. Every piece is verified by
// its hash before a byte of it is used, so an interrupted shipping resumes, damage on disk is
// noticed and fetched again, and a restart ships nothing, all by the same rule.
#ifndef RENGA_WORKER_SERVICE_SHIPPED_WEIGHTS_H_
#define RENGA_WORKER_SERVICE_SHIPPED_WEIGHTS_H_

#include <atomic>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/container/flat_hash_map.h"
#include "absl/container/flat_hash_set.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "worker/engine/shard.h"
#include "worker/service/load_order.h"
#include "worker/service/local_model.h"
#include "worker/service/packed_cache.h"
#include "worker/service/piece_cache.h"
#include "worker/service/piece_fetcher.h"

namespace renga::worker {

// What the packed cache calls a matrix of this order's model; its tensor must be in the order.
PackedId PackedIdOf(const LoadOrder& order, const engine::MatrixKey& key);

// Several threads may read at once, where a local copy of the model is; the coordinator sends
// pieces in order, to one. Any thread may cancel and look at the counters.
class ShippedWeights : public engine::WeightSource {
 public:
  struct Places {
    const LocalModel* local_model = nullptr;  // may be null
    std::string cache_directory;              // may be empty
    // Of the head of the order's model; null: none.
    std::shared_ptr<const engine::ScreenFile> screen = nullptr;
    PackedCache* packed = nullptr;  // of the layout of the backend that loads; outlives this
    std::shared_ptr<grpc::Channel> coordinator;
    // To order->piece_holders, in their order.
    std::vector<std::shared_ptr<grpc::Channel>> holders = {};
  };
  // `order` outlives this.
  ShippedWeights(const LoadOrder* order, const Places& places);

  absl::StatusOr<base::DataType> TensorType(const std::string& name) override;
  // kUnavailable when the coordinator is needed and stays away; kDataLoss when what it sends is
  // not what its manifest says; kCancelled.
  absl::Status Read(const std::string& name, int64_t offset, std::span<std::byte> out) override;

  bool ReadsAtOnce() const override { return IsAtHand(); }
  bool IsAtHand() const override { return local_model_ != nullptr; }

  std::optional<kernels::PackedBytes> FindPacked(const engine::MatrixKey& key,
                                                 int64_t bytes) override;

  std::shared_ptr<const engine::ScreenFile> FindScreen() override { return screen_; }
  // Of the packed cache. kFailedPrecondition when it is off.
  std::unique_ptr<engine::PackedFile> OpenPacked(const engine::MatrixKey& key,
                                                 int64_t bytes) override;
  absl::Status KeepPacked(const engine::MatrixKey& key, std::span<const std::byte> bytes) override;

  void Cancel();
  int64_t fetched_bytes() const { return fetched_bytes_; }
  // From the cache, packed or not, or the local model.
  int64_t cached_bytes() const { return cached_bytes_; }

 private:
  // Makes piece_ the wanted piece.
  absl::Status KeepPiece(const std::string& name, const ShippedTensor& tensor, uint32_t piece)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(part_mutex_);
  // Fills `out`, of the piece's size, from the nearest place.
  absl::Status LoadPiece(const std::string& name, const ShippedTensor& tensor, uint32_t piece,
                         std::span<std::byte> out);
  bool ReadLocal(const std::string& name, const ShippedTensor& tensor, uint32_t piece,
                 std::span<std::byte> out);
  // Whether the local model's bytes of the tensor were others than the order's.
  bool IsForeign(const std::string& name) const;
  bool ReadCached(const ShippedTensor& tensor, uint32_t piece, std::span<std::byte> out)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // Who sends pieces.
  struct Supplier {
    std::unique_ptr<PieceFetcher> fetcher;
    const PieceHolder* holder = nullptr;  // null: the coordinator, which has all
    // Of a holder, as far as it is still asked for them; guarded by mutex_.
    absl::flat_hash_set<uint32_t> tensors;
  };
  // The holder that is asked for the tensor, or the coordinator.
  Supplier& SupplierOf(uint32_t tensor) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  absl::Status Fetch(const ShippedTensor& tensor, uint32_t piece, std::span<std::byte> out)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  absl::Status FetchFromCoordinator(const ShippedTensor& tensor, uint32_t piece,
                                    std::span<std::byte> out) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  absl::Status FetchOnce(Supplier& supplier, const ShippedTensor& tensor, uint32_t piece,
                         std::span<std::byte> out) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // The wanted piece, and after it everything in order that this supplier will be asked for.
  std::vector<PieceId> WantedFrom(PieceId first, const Supplier& supplier)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  const LoadOrder* const order_;
  const LocalModel* const local_model_;
  const std::shared_ptr<const engine::ScreenFile> screen_;
  mutable absl::Mutex foreign_mutex_;
  // Tensors whose local bytes are another model's.
  absl::flat_hash_set<std::string> foreign_ ABSL_GUARDED_BY(foreign_mutex_);
  PackedCache* const packed_;
  absl::Mutex mutex_;  // of what is not local; taken after part_mutex_
  PieceCache cache_ ABSL_GUARDED_BY(mutex_);
  std::vector<Supplier> suppliers_;  // the coordinator last; who they are does not change
  // Every piece the shard reads, in order, and where each tensor's begin in that list.
  struct OrderedPiece {
    PieceId id;
    const std::string* tensor_name;
  };
  std::vector<OrderedPiece> sequence_;
  absl::flat_hash_map<uint32_t, size_t> position_;  // by tensor index, of its piece 0
  // The piece that was last read in part: the next read often begins in it.
  absl::Mutex part_mutex_;
  std::vector<std::byte> piece_ ABSL_GUARDED_BY(part_mutex_);
  PieceId piece_id_ ABSL_GUARDED_BY(part_mutex_);
  bool piece_valid_ ABSL_GUARDED_BY(part_mutex_) = false;
  std::atomic<int64_t> fetched_bytes_ = 0;
  std::atomic<int64_t> cached_bytes_ = 0;
};

}  // namespace renga::worker

#endif  // RENGA_WORKER_SERVICE_SHIPPED_WEIGHTS_H_

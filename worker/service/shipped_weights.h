// A shard's weights wherever they are nearest: in a copy of the model on this machine, in the
// on-disk cache, on the disk of another worker, or at the coordinator. Every piece is verified by
// its hash before a byte of it is used, so an interrupted shipping resumes, damage on disk is
// noticed and fetched again, and a restart ships nothing, all by the same rule.
//
// Pieces come by three roads, each with streams of its own (piece_suppliers.h): what a shard reads
// in a known order, in one stream from its beginning to its end; of a lazy shard the experts that
// rows have chosen, as Expect announces them; and what nobody waits for (Bring).
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
#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "worker/engine/shard.h"
#include "worker/service/load_order.h"
#include "worker/service/local_model.h"
#include "worker/service/packed_cache.h"
#include "worker/service/piece_cache.h"
#include "worker/service/piece_fetcher.h"
#include "worker/service/piece_suppliers.h"

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
    PieceSuppliers::Channels channels;
    // The shard is lazy: matrices of layers are read after everything else, those of experts as
    // Expect says.
    bool lazy = false;
  };
  // `order` outlives this.
  ShippedWeights(const LoadOrder* order, const Places& places);

  absl::StatusOr<base::DataType> TensorType(const std::string& name) override;
  // PieceSuppliers::Fetch's errors.
  absl::Status Read(const std::string& name, int64_t offset, std::span<std::byte> out) override;

  bool ReadsAtOnce() const override { return IsAtHand(); }
  bool IsAtHand() const override { return local_model_ != nullptr; }
  void Expect(std::span<const engine::MatrixKey> next) override;
  // As much of the disk as is still to be kept is left by pieces.
  absl::Status PlanToKeep(int64_t bytes) override;

  std::optional<kernels::PackedBytes> FindPacked(const engine::MatrixKey& key,
                                                 int64_t bytes) override;

  std::shared_ptr<const engine::ScreenFile> FindScreen() override { return screen_; }
  // Of the packed cache. kFailedPrecondition when it is off.
  std::unique_ptr<engine::PackedFile> OpenPacked(const engine::MatrixKey& key,
                                                 int64_t bytes) override;
  absl::Status KeepPacked(const engine::MatrixKey& key, std::span<const std::byte> bytes) override;

  // Reads fail from now on (kCancelled), those that are under way too.
  void Cancel();
  // And no more.
  void Resume();

  // Of these matrices the pieces that are not on this machine, in order, each once.
  std::vector<PieceId> Lacking(std::span<const engine::MatrixKey> matrices);
  // Fetches the first of `pieces`, which the order has, into the on-disk cache, unless it is there.
  // Those behind it are asked for too, and come when they are the first. PieceSuppliers::Fetch's
  // errors; kResourceExhausted when the disk takes no more pieces. For one thread, beside reads.
  absl::Status Bring(std::span<const PieceId> pieces);
  // Makes Bring fail, now and from now on.
  void CancelBringing();
  int64_t SizeOf(const PieceId& piece) const;

  int64_t fetched_bytes() const { return fetched_bytes_; }
  // From the cache, packed or not, or the local model.
  int64_t cached_bytes() const { return cached_bytes_; }
  // That Read had in whole pieces, from wherever. Bring's are not among them.
  int64_t read_bytes() const { return read_bytes_; }

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
      ABSL_LOCKS_EXCLUDED(mutex_);
  void WriteCached(const PieceId& piece, std::span<const std::byte> bytes)
      ABSL_LOCKS_EXCLUDED(mutex_);
  // Whether the piece need not be fetched, as far as is known without reading it.
  bool IsHere(const PieceId& piece) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // Whether a tensor's pieces come as Expect announces them; others come in sequence_.
  bool ComesWhenChosen(const ShippedTensor& tensor) const;
  absl::Status Fetch(const ShippedTensor& tensor, uint32_t piece, std::span<std::byte> out);
  absl::Status FetchChosen(const ShippedTensor& tensor, uint32_t piece, std::span<std::byte> out);
  // Hands on those of the pieces that are not here, until `take` says no.
  void TakeLacking(std::span<const PieceId> pieces, absl::FunctionRef<bool(const PieceId&)> take)
      ABSL_LOCKS_EXCLUDED(mutex_);
  // Those that a matrix lies in.
  std::vector<PieceId> PiecesOf(const engine::MatrixKey& matrix) const;

  const LoadOrder* const order_;
  const LocalModel* const local_model_;
  const bool lazy_;
  const std::shared_ptr<const engine::ScreenFile> screen_;
  mutable absl::Mutex foreign_mutex_;
  // Tensors whose local bytes are another model's.
  absl::flat_hash_set<std::string> foreign_ ABSL_GUARDED_BY(foreign_mutex_);
  PackedCache* const packed_;
  absl::Mutex mutex_;  // taken after part_mutex_
  PieceCache cache_ ABSL_GUARDED_BY(mutex_);
  int64_t to_keep_ ABSL_GUARDED_BY(mutex_) = 0;  // packed bytes that the disk still has to take
  PieceSuppliers in_order_;
  PieceSuppliers chosen_;
  PieceSuppliers spare_;
  absl::flat_hash_map<uint32_t, const ShippedTensor*> tensors_;  // by index, and their names
  absl::flat_hash_map<uint32_t, const std::string*> names_;
  // Every piece that comes in the order of loading, and where each tensor's begin in that list.
  std::vector<PieceId> sequence_;
  absl::flat_hash_map<uint32_t, size_t> position_;  // by tensor index, of its piece 0
  // As announced and not here then, and how many of them were asked for by Read.
  absl::Mutex expected_mutex_;
  std::shared_ptr<const std::vector<PieceId>> expected_ ABSL_GUARDED_BY(expected_mutex_);
  size_t expected_done_ ABSL_GUARDED_BY(expected_mutex_) = 0;
  // The piece that was last read in part: the next read often begins in it.
  absl::Mutex part_mutex_;
  std::vector<std::byte> piece_ ABSL_GUARDED_BY(part_mutex_);
  PieceId piece_id_ ABSL_GUARDED_BY(part_mutex_);
  bool piece_valid_ ABSL_GUARDED_BY(part_mutex_) = false;
  std::atomic<int64_t> fetched_bytes_ = 0;
  std::atomic<int64_t> cached_bytes_ = 0;
  std::atomic<int64_t> read_bytes_ = 0;
};

}  // namespace renga::worker

#endif  // RENGA_WORKER_SERVICE_SHIPPED_WEIGHTS_H_

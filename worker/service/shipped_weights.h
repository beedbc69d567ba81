// A shard's weights wherever they are nearest: in a copy of the model on this machine, in the
// on-disk cache, or at the coordinator. Every piece is verified by its hash before a byte of it is
// used, so an interrupted shipping resumes, damage on disk is noticed and fetched again, and a
// restart ships nothing, all by the same rule.
#ifndef RENGA_WORKER_SERVICE_SHIPPED_WEIGHTS_H_
#define RENGA_WORKER_SERVICE_SHIPPED_WEIGHTS_H_

#include <atomic>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/container/flat_hash_set.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "worker/engine/shard.h"
#include "worker/service/load_order.h"
#include "worker/service/local_model.h"
#include "worker/service/piece_cache.h"
#include "worker/service/piece_fetcher.h"

namespace renga::worker {

// One thread reads; any thread may cancel and look at the counters.
class ShippedWeights : public engine::WeightSource {
 public:
  struct Places {
    const LocalModel* local_model = nullptr;  // may be null
    std::string cache_directory;              // may be empty
    std::shared_ptr<grpc::Channel> coordinator;
  };
  // `order` outlives this.
  ShippedWeights(const LoadOrder* order, const Places& places);

  absl::StatusOr<base::DataType> TensorType(const std::string& name) override;
  // kUnavailable when the coordinator is needed and stays away; kDataLoss when what it sends is
  // not what its manifest says; kCancelled.
  absl::Status Read(const std::string& name, int64_t offset, std::span<std::byte> out) override;

  void Cancel() { fetcher_.Cancel(); }
  int64_t fetched_bytes() const { return fetched_bytes_; }
  // From the cache or the local model.
  int64_t cached_bytes() const { return cached_bytes_; }

 private:
  // Makes piece_ the wanted piece.
  absl::Status LoadPiece(const std::string& name, const ShippedTensor& tensor, uint32_t piece);
  bool ReadLocal(const std::string& name, const ShippedTensor& tensor, uint32_t piece);
  bool ReadCached(const ShippedTensor& tensor, uint32_t piece);
  absl::Status Fetch(const ShippedTensor& tensor, uint32_t piece);
  absl::Status FetchOnce(const ShippedTensor& tensor, uint32_t piece);
  // The wanted piece, and after it everything in order that will have to be fetched too.
  std::vector<PieceId> WantedFrom(PieceId first);
  bool IsPiece(const ShippedTensor& tensor, uint32_t piece) const;

  const LoadOrder* const order_;
  const LocalModel* const local_model_;
  absl::flat_hash_set<std::string> foreign_;  // tensors whose local bytes are another model's
  PieceCache cache_;
  PieceFetcher fetcher_;
  // Every piece the shard reads, in order, and where each tensor's begin in that list.
  struct OrderedPiece {
    PieceId id;
    const std::string* tensor_name;
  };
  std::vector<OrderedPiece> sequence_;
  absl::flat_hash_map<uint32_t, size_t> position_;  // by tensor index, of its piece 0
  // The piece read last: the next read often begins in it.
  std::vector<std::byte> piece_;
  PieceId piece_id_;
  bool piece_valid_ = false;
  std::atomic<int64_t> fetched_bytes_ = 0;
  std::atomic<int64_t> cached_bytes_ = 0;
};

}  // namespace renga::worker

#endif  // RENGA_WORKER_SERVICE_SHIPPED_WEIGHTS_H_

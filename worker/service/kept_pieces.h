// The pieces in this machine's on-disk cache, for transport::PiecesService: another worker that
// needs them takes them from here, and the coordinator need not send them again.
#ifndef RENGA_WORKER_SERVICE_KEPT_PIECES_H_
#define RENGA_WORKER_SERVICE_KEPT_PIECES_H_

#include <cstdint>
#include <memory>
#include <string>
#include <utility>

#include "absl/status/status.h"
#include "proto/cluster.pb.h"
#include "transport/pieces_service.h"
#include "worker/service/piece_cache.h"

namespace renga::worker {

class KeptPieces : public transport::PieceSource {
 public:
  // `directory` as PieceCache has it; "": nothing is held.
  explicit KeptPieces(std::string directory) : directory_(std::move(directory)) {}

  // kInvalidArgument for what names no model.
  absl::Status Check(const proto::PieceRequest& request) const override;
  // What the cache has is not verified. kNotFound when there is no such piece.
  absl::Status Read(const std::string& model_id, uint32_t tensor, uint32_t piece,
                    std::string& bytes) override;

 private:
  const std::string directory_;
  // Of the model and tensor that were asked for last: what is in the cache may change.
  std::string model_id_;
  uint32_t tensor_ = 0;
  std::unique_ptr<PieceCache> cache_;
};

}  // namespace renga::worker

#endif  // RENGA_WORKER_SERVICE_KEPT_PIECES_H_

// The pieces of the coordinator's model, for transport::PiecesService.
#ifndef RENGA_COORDINATOR_CLUSTER_MODEL_PIECES_H_
#define RENGA_COORDINATOR_CLUSTER_MODEL_PIECES_H_

#include <cstdint>
#include <string>

#include "absl/status/status.h"
#include "coordinator/cluster/model_store.h"
#include "proto/cluster.pb.h"
#include "transport/pieces_service.h"

namespace renga::cluster {

class ModelPieces : public transport::PieceSource {
 public:
  // `store` outlives it.
  explicit ModelPieces(const ModelStore* store) : store_(store) {}

  // kNotFound for another model, kOutOfRange for pieces that it does not have.
  absl::Status Check(const proto::PieceRequest& request) const override;
  absl::Status Read(const std::string& model_id, uint32_t tensor, uint32_t piece,
                    std::string& bytes) override;

 private:
  const ModelStore* const store_;
};

}  // namespace renga::cluster

#endif  // RENGA_COORDINATOR_CLUSTER_MODEL_PIECES_H_

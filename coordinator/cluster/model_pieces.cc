#include "coordinator/cluster/model_pieces.h"

#include <span>

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "coordinator/cluster/manifest.h"

namespace renga::cluster {

absl::Status ModelPieces::Check(const proto::PieceRequest& request) const {
  if (request.model_id() != WireBytes(store_->manifest().model_id)) {
    return absl::NotFoundError("the coordinator serves another model");
  }
  for (const proto::PieceRange& range : request.ranges()) {
    const auto& tensors = store_->manifest().tensors;
    const uint64_t end = uint64_t{range.first_piece()} + range.piece_count();
    if (range.tensor() >= tensors.size() || end > tensors[range.tensor()].pieces.size()) {
      return absl::OutOfRangeError(absl::StrCat("the model has no pieces ", range.first_piece(),
                                                " to ", end, " of tensor ", range.tensor()));
    }
  }
  return absl::OkStatus();
}

absl::Status ModelPieces::Read(const std::string& /*model_id*/, uint32_t tensor, uint32_t piece,
                               std::string& bytes) {
  RENGA_ASSIGN_OR_RETURN(const std::span<const std::byte> found, store_->PieceBytes(tensor, piece));
  bytes.assign(reinterpret_cast<const char*>(found.data()), found.size());
  return absl::OkStatus();
}

}  // namespace renga::cluster

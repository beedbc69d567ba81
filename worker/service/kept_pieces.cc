#include "worker/service/kept_pieces.h"

#include "absl/strings/str_cat.h"
#include "base/content_hash.h"

namespace renga::worker {

absl::Status KeptPieces::Check(const proto::PieceRequest& request) const {
  if (request.model_id().size() == sizeof(base::ContentHash)) return absl::OkStatus();
  return absl::InvalidArgumentError("pieces of a model without an id");
}

absl::Status KeptPieces::Read(const std::string& model_id, uint32_t tensor, uint32_t piece,
                              std::string& bytes) {
  if (cache_ == nullptr || model_id != model_id_ || tensor != tensor_) {
    cache_ = std::make_unique<PieceCache>(directory_, model_id);
    model_id_ = model_id;
    tensor_ = tensor;
  }
  if (cache_->MayHave(tensor, piece)) return cache_->ReadStored(tensor, piece, bytes);
  cache_.reset();
  return absl::NotFoundError(
      absl::StrCat("this worker does not keep piece ", piece, " of tensor ", tensor));
}

}  // namespace renga::worker

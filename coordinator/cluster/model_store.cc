#include "coordinator/cluster/model_store.h"

#include <algorithm>
#include <utility>
#include <vector>

#include "absl/memory/memory.h"
#include "absl/strings/str_cat.h"
#include "base/file.h"
#include "base/machine_limits.h"
#include "base/status_macros.h"
#include "transport/dialer.h"

namespace renga::cluster {

absl::StatusOr<std::unique_ptr<ModelStore>> ModelStore::Open(const std::string& path,
                                                             const Options& options) {
  auto store = absl::WrapUnique(new ModelStore());
  RENGA_ASSIGN_OR_RETURN(store->file_, model::GgufFile::Open(path));
  RENGA_ASSIGN_OR_RETURN(store->model_, model::ReadModel(*store->file_));
  RENGA_ASSIGN_OR_RETURN(store->footprint_, model::MeasureModel(*store->file_, store->model_));
  const std::string directory = options.cache_directory.empty()
                                    ? base::CacheDirectory() + "/manifests"
                                    : options.cache_directory;
  const int threads = options.threads > 0 ? options.threads : base::UsableCpuCount();
  RENGA_ASSIGN_OR_RETURN(store->manifest_, LoadOrHashModel(*store->file_, store->model_, directory,
                                                           threads, options.progress));
  RENGA_ASSIGN_OR_RETURN(store->embeddings_,
                         model::EmbeddingTable::Create(*store->file_, store->model_.config));
  for (const ManifestTensor& tensor : store->manifest_.tensors) {
    store->tensor_bytes_.push_back(
        store->file_->TensorBytes(*store->file_->FindTensor(tensor.name)));
  }
  const model::Model& model = store->model_;
  store->tensors_per_layer_ = model.architecture->LayerTensors(model.config, 0).size();
  return store;
}

void ModelStore::CountHead(int64_t bytes) {
  const int64_t rows = model_.config.vocab_size;
  footprint_.head_row_work_bytes = footprint_.HeadRowWork();
  footprint_.head_row_bytes = (bytes + rows - 1) / rows;
}

std::vector<uint32_t> ModelStore::TensorsOf(const model::ShardSpec& spec) const {
  // The manifest's order: every layer's tensors, rope factors (perhaps), output norm, output, and
  // the embedding, if that is another one.
  std::vector<uint32_t> tensors;
  const auto embedding = static_cast<uint32_t>(manifest_.tensors.size() - 1);
  const uint32_t output = model_.config.tied_output ? embedding : embedding - 1;
  const uint32_t output_norm = output - 1;
  if (!spec.layers.empty()) {
    const size_t begin = static_cast<size_t>(spec.layers.begin) * tensors_per_layer_;
    const size_t end = static_cast<size_t>(spec.layers.end) * tensors_per_layer_;
    for (size_t i = begin; i < end; ++i) tensors.push_back(static_cast<uint32_t>(i));
    if (model_.config.rope_has_factors) tensors.push_back(output_norm - 1);
  }
  if (!spec.head_rows.empty()) {
    tensors.push_back(output_norm);
    tensors.push_back(output);
  }
  const bool is_there = model_.config.tied_output && !spec.head_rows.empty();
  if (spec.embedding && !is_there) tensors.push_back(embedding);
  return tensors;
}

absl::StatusOr<std::span<const std::byte>> ModelStore::PieceBytes(uint32_t tensor,
                                                                  uint32_t piece) const {
  if (tensor >= tensor_bytes_.size() || piece >= manifest_.tensors[tensor].pieces.size()) {
    return absl::OutOfRangeError(
        absl::StrCat("the model has no piece ", piece, " of tensor ", tensor));
  }
  const std::span<const std::byte> bytes = tensor_bytes_[tensor];
  const size_t begin = piece * static_cast<size_t>(transport::kPieceBytes);
  return bytes.subspan(begin, std::min<size_t>(bytes.size() - begin, transport::kPieceBytes));
}

}  // namespace renga::cluster

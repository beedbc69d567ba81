// The model as the coordinator has it: the mapped file, what it means, and its pieces to ship.
#ifndef RENGA_COORDINATOR_CLUSTER_MODEL_STORE_H_
#define RENGA_COORDINATOR_CLUSTER_MODEL_STORE_H_

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>

#include "absl/status/statusor.h"
#include "coordinator/cluster/manifest.h"
#include "model/architecture.h"
#include "model/embedding.h"
#include "model/footprint.h"
#include "model/gguf_file.h"
#include "model/shard_spec.h"

namespace renga::cluster {

// Immutable once opened, and once CountHead was called if it is; then safe from any thread.
class ModelStore {
 public:
  struct Options {
    // Where hashes of models are kept; "" is `manifests` in base::CacheDirectory().
    std::string cache_directory;
    int threads = 0;  // that hash; 0 is as many as the process may use
    HashProgress progress;
  };
  // Errors are GgufFile::Open's and ReadModel's.
  static absl::StatusOr<std::unique_ptr<ModelStore>> Open(const std::string& path,
                                                          const Options& options);

  const model::GgufFile& file() const { return *file_; }
  const model::Model& model() const { return model_; }
  const model::ModelFootprint& footprint() const { return footprint_; }
  const Manifest& manifest() const { return manifest_; }
  const model::EmbeddingTable& embeddings() const { return *embeddings_; }

  // Workers will hold `bytes` in place of all rows of the output matrix: plans count that.
  void CountHead(int64_t bytes);

  // What workers hold of the layers under an approximation: plans count that. Errors of
  // model::CountApproximation.
  absl::Status CountApproximation(const model::Approximation& approximation) {
    return model::CountApproximation(*file_, model_, approximation, footprint_);
  }

  // Indices into manifest().tensors of what a worker must hold to be `spec`, ascending.
  std::vector<uint32_t> TensorsOf(const model::ShardSpec& spec) const;

  // The bytes of one piece, inside the mapping. kOutOfRange when there is no such piece.
  absl::StatusOr<std::span<const std::byte>> PieceBytes(uint32_t tensor, uint32_t piece) const;

 private:
  ModelStore() = default;

  std::unique_ptr<model::GgufFile> file_;
  model::Model model_;
  model::ModelFootprint footprint_;
  Manifest manifest_;
  std::optional<model::EmbeddingTable> embeddings_;  // always there once opened
  // Of each tensor of the manifest, inside the mapping.
  std::vector<std::span<const std::byte>> tensor_bytes_;
  size_t tensors_per_layer_ = 0;
};

}  // namespace renga::cluster

#endif  // RENGA_COORDINATOR_CLUSTER_MODEL_STORE_H_

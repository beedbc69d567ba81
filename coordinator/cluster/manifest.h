// What a model consists of, piece by piece: the tensors shards are made of and a hash of every
// piece. Workers check what they fetch and what they find on disk against it.
//
// Hashing reads the whole file once; the result is kept on disk, keyed by the paths, sizes and
// times of the model's files, so a restart hashes nothing.
#ifndef RENGA_COORDINATOR_CLUSTER_MANIFEST_H_
#define RENGA_COORDINATOR_CLUSTER_MANIFEST_H_

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "base/content_hash.h"
#include "base/data_type.h"
#include "model/architecture.h"
#include "model/gguf_file.h"

namespace renga::cluster {

// One tensor a shard may need. It is cut into pieces of transport::kPieceBytes; the last may be
// shorter.
struct ManifestTensor {
  std::string name;
  base::DataType type = base::DataType::kInvalid;
  std::vector<int64_t> dims;  // innermost first
  int64_t byte_size = 0;
  std::vector<base::ContentHash> pieces;
};

// `model_id` is a hash over the hyper-parameters and everything in `tensors`: equal content, equal
// id, whatever the file is called.
struct Manifest {
  base::ContentHash model_id;
  std::vector<ManifestTensor> tensors;
};

// Bytes hashed so far and in total. Called from several threads, one call at a time.
using HashProgress = std::function<void(int64_t done_bytes, int64_t total_bytes)>;

// The tensors of the manifest in their order: layer by layer, rope factors (perhaps), output norm,
// output, and the embedding, if that is another matrix.
std::vector<model::TensorSpec> ShippedTensors(const model::Model& model);

// Reads and hashes every piece, on `threads` threads. `progress` may be empty.
absl::StatusOr<Manifest> HashModel(const model::GgufFile& file, const model::Model& model,
                                   int threads, const HashProgress& progress);

// The same, from the cache in `directory` when it has the answer for these very files; otherwise
// hashed and stored there. A damaged or foreign cache file counts as missing, and a cache that
// cannot be written costs only the next start's time.
absl::StatusOr<Manifest> LoadOrHashModel(const model::GgufFile& file, const model::Model& model,
                                         const std::string& directory, int threads,
                                         const HashProgress& progress);

// As messages carry it: high, then low, little endian.
std::string WireBytes(const base::ContentHash& hash);

}  // namespace renga::cluster

#endif  // RENGA_COORDINATOR_CLUSTER_MANIFEST_H_

// Matrices that are used together, as packed files on the disk and as what a backend computes from.
#ifndef RENGA_WORKER_ENGINE_BUNDLE_H_
#define RENGA_WORKER_ENGINE_BUNDLE_H_

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "model/architecture.h"
#include "model/layer_slice.h"
#include "worker/engine/shard.h"
#include "worker/engine/weight_loader.h"
#include "worker/kernels/backend.h"

namespace renga::engine {

// A matrix of a bundle.
struct BundleMatrix {
  model::TensorSpec tensor;
  model::TensorPart part;
  MatrixKey key;
  int64_t bytes = 0;          // packed
  int64_t RoomBytes() const;  // in a buffer: whole pages
};

// Those that one call of a layer's program multiplies by, or an expert's: gate, up and down.
struct Bundle {
  std::vector<BundleMatrix> matrices;
  bool is_expert = false;
  int64_t RoomBytes() const;  // in a buffer: each matrix in whole pages
};

// One for each matrix; null where the disk does not have it.
using BundleFiles = std::vector<std::unique_ptr<PackedFile>>;
BundleFiles OpenBundle(const Bundle& bundle, WeightSource& source);

// Bytes of weights that packing what the disk lacks will read.
int64_t UnpackedBytes(const Bundle& bundle, const BundleFiles& files);

// Adds the bundle's matrices, in the order in which they are read.
void AppendKeys(const Bundle& bundle, std::vector<MatrixKey>& keys);

// What to say where `what` cannot be kept packed.
std::string NoPlaceOnDisk(absl::string_view what);

// Packs a matrix in memory and keeps it on disk; then `file` is it. Its bytes are copied to `room`
// too, unless that is null. Errors of the source, its disk and the backend.
absl::Status PackToDisk(const BundleMatrix& matrix, kernels::Backend& backend, WeightSource& source,
                        WeightLoader& loader, std::unique_ptr<PackedFile>& file,
                        std::byte* room = nullptr);

// Does `read` again when it fails in a way that may pass: a disk may stumble; what is damaged stays
// damaged.
absl::Status ReadWithPatience(absl::FunctionRef<absl::Status()> read);

// Reads all matrices into `room`, which has RoomBytes and is aligned to pages, one after the other.
absl::Status ReadBundle(const Bundle& bundle, const BundleFiles& files, std::byte* room);

// The matrices in `room`, as ReadBundle leaves them there.
std::vector<kernels::PackedBytes> BytesIn(const Bundle& bundle, std::byte* room);

// What computes from these bytes, of each matrix.
absl::StatusOr<std::vector<std::unique_ptr<kernels::WeightMatrix>>> AdoptBundle(
    const Bundle& bundle, std::vector<kernels::PackedBytes> bytes, kernels::Backend& backend);

}  // namespace renga::engine

#endif  // RENGA_WORKER_ENGINE_BUNDLE_H_

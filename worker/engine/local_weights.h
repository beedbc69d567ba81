// Weights from a model file on this machine.
#ifndef RENGA_WORKER_ENGINE_LOCAL_WEIGHTS_H_
#define RENGA_WORKER_ENGINE_LOCAL_WEIGHTS_H_

#include <memory>
#include <span>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "base/file.h"
#include "model/gguf_file.h"
#include "worker/engine/shard.h"

namespace renga::engine {

// Reads by positioned reads, not through the file's mapping: pages of a mapping would stay resident
// beside the copy that is loaded, and count against what the worker offered.
// Safe from several threads.
class LocalWeights : public WeightSource {
 public:
  // `file` outlives the source. Opens each of its parts again; a parsed image without files is
  // read from memory.
  static absl::StatusOr<std::unique_ptr<LocalWeights>> Create(const model::GgufFile* file);

  absl::StatusOr<base::DataType> TensorType(const std::string& name) override;
  absl::Status Read(const std::string& name, int64_t offset, std::span<std::byte> out) override;
  bool ReadsAtOnce() const override { return true; }
  bool IsAtHand() const override { return true; }

 private:
  LocalWeights(const model::GgufFile* file,
               std::vector<std::unique_ptr<base::RandomAccessFile>> parts)
      : file_(file), parts_(std::move(parts)) {}

  absl::StatusOr<const model::GgufTensor*> Find(const std::string& name) const;

  const model::GgufFile* const file_;
  const std::vector<std::unique_ptr<base::RandomAccessFile>> parts_;  // empty: from memory
};

}  // namespace renga::engine

#endif  // RENGA_WORKER_ENGINE_LOCAL_WEIGHTS_H_

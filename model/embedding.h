// Rows of the embedding matrix, decoded as they are asked for: from the mapped model file, or from
// the copy of the matrix that a worker holds.
#ifndef RENGA_MODEL_EMBEDDING_H_
#define RENGA_MODEL_EMBEDDING_H_

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "absl/status/statusor.h"
#include "base/data_type.h"
#include "model/gguf_file.h"
#include "model/model_config.h"

namespace renga::model {

// Immutable; safe from any thread. Touches only the rows it reads.
class EmbeddingTable {
 public:
  // `file` outlives the table. kDataLoss when token_embd.weight is missing or has another shape
  // than the config says.
  static absl::StatusOr<EmbeddingTable> Create(const GgufFile& file, const ModelConfig& config);
  // `bytes` is the tensor as stored, of type `type`, and outlives the table. kInvalidArgument when
  // its size is not the one that the config says.
  static absl::StatusOr<EmbeddingTable> Over(std::span<const std::byte> bytes, base::DataType type,
                                             const ModelConfig& config);

  // One row of d_model numbers for each id, one after another, decoded exactly and multiplied by
  // the config's embedding_scale.
  // kInvalidArgument names an id outside the vocabulary.
  absl::StatusOr<std::vector<float>> Rows(std::span<const int32_t> ids) const;

  int64_t row_count() const { return row_count_; }
  int64_t width() const { return width_; }

 private:
  EmbeddingTable() = default;

  std::span<const std::byte> bytes_;
  base::DataType type_ = base::DataType::kInvalid;
  int64_t row_count_ = 0;
  int64_t width_ = 0;
  int64_t row_bytes_ = 0;
  float scale_ = 1.0f;
};

}  // namespace renga::model

#endif  // RENGA_MODEL_EMBEDDING_H_

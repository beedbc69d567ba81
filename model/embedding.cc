#include "model/embedding.h"

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "model/architecture.h"

namespace renga::model {

absl::StatusOr<EmbeddingTable> EmbeddingTable::Create(const GgufFile& file,
                                                      const ModelConfig& config) {
  const TensorSpec spec = EmbeddingTensor(config);
  const GgufTensor* tensor = file.FindTensor(spec.name);
  if (tensor == nullptr) {
    return absl::DataLossError(absl::StrCat("the model file has no tensor ", spec.name));
  }
  if (tensor->row_elements() != spec.columns || tensor->row_count() != spec.rows) {
    return absl::DataLossError(absl::StrCat(spec.name, " has ", tensor->row_count(), " rows of ",
                                            tensor->row_elements(), " numbers, not ", spec.rows,
                                            " of ", spec.columns));
  }
  return Over(file.TensorBytes(*tensor), tensor->type, config);
}

absl::StatusOr<EmbeddingTable> EmbeddingTable::Over(std::span<const std::byte> bytes,
                                                    base::DataType type,
                                                    const ModelConfig& config) {
  const TensorSpec spec = EmbeddingTensor(config);
  EmbeddingTable table;
  table.bytes_ = bytes;
  table.type_ = type;
  table.row_count_ = spec.rows;
  table.width_ = spec.columns;
  table.scale_ = static_cast<float>(config.embedding_scale);
  RENGA_ASSIGN_OR_RETURN(table.row_bytes_, base::RowBytes(type, spec.columns));
  if (static_cast<int64_t>(bytes.size()) != table.row_bytes_ * spec.rows) {
    return absl::InvalidArgumentError(absl::StrCat(spec.name, " has ", bytes.size(), " bytes, not ",
                                                   spec.rows, " rows of ", table.row_bytes_));
  }
  return table;
}

absl::StatusOr<std::vector<float>> EmbeddingTable::Rows(std::span<const int32_t> ids) const {
  for (const int32_t id : ids) {
    if (id < 0 || id >= row_count_) {
      return absl::InvalidArgumentError(
          absl::StrCat("token ", id, " is not in the vocabulary of ", row_count_, " tokens"));
    }
  }
  const base::DataTypeInfo& info = base::GetDataTypeInfo(type_);
  std::vector<float> rows(ids.size() * static_cast<size_t>(width_));
  for (size_t i = 0; i < ids.size(); ++i) {
    info.to_float(bytes_.data() + ids[i] * row_bytes_,
                  rows.data() + i * static_cast<size_t>(width_), width_);
  }
  if (scale_ != 1.0f) {
    for (float& number : rows) number *= scale_;
  }
  return rows;
}

}  // namespace renga::model

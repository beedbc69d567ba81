// Reads the header of one GGUF image (a whole file, or one part of a split model): its metadata
// and tensor records, with every size checked. GgufFile puts the parts together.
// Internal to model/.
#ifndef RENGA_MODEL_GGUF_PARSER_H_
#define RENGA_MODEL_GGUF_PARSER_H_

#include <cstddef>
#include <span>
#include <vector>

#include "absl/status/statusor.h"
#include "model/gguf_file.h"

namespace renga::model {

struct GgufImage {
  GgufMetadata metadata;
  // In file order; offsets and sizes lie inside the image and no two tensors overlap.
  std::vector<GgufTensor> tensors;
};

// kDataLoss says what is wrong with the image and where; kUnimplemented names a tensor whose type
// renga does not know, a file version it does not read, or an array of arrays.
absl::StatusOr<GgufImage> ParseGgufImage(std::span<const std::byte> image);

}  // namespace renga::model

#endif  // RENGA_MODEL_GGUF_PARSER_H_

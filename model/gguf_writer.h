// Writing GGUF version 3 files: for the project's generators and tests.
#ifndef RENGA_MODEL_GGUF_WRITER_H_
#define RENGA_MODEL_GGUF_WRITER_H_

#include <functional>
#include <span>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "model/gguf_file.h"

namespace renga::model {

// A tensor to write. `fill` is called once, in order, to produce the bytes in pieces: it gets a
// sink and calls it until exactly the tensor's byte size has been given, so that a model larger
// than memory can be written.
struct GgufTensorToWrite {
  std::string name;
  base::DataType type = base::DataType::kInvalid;
  std::vector<int64_t> dims;  // innermost first
  using Sink = std::function<absl::Status(std::span<const std::byte>)>;
  std::function<absl::Status(const Sink&)> fill;
};

// Writes the file in one pass, under another name beside it that is renamed at the end; on failure
// nothing is left. Numbers are stored in the narrower type of their kind when all of a value fits
// it (uint32, int32, float32), which is what other readers expect of the usual keys.
// general.alignment is honoured. kInvalidArgument for tensors that no reader would take, or whose
// `fill` gives another number of bytes; otherwise what the file system said.
absl::Status WriteGguf(const std::string& path, const GgufMetadata& metadata,
                       const std::vector<GgufTensorToWrite>& tensors);

}  // namespace renga::model

#endif  // RENGA_MODEL_GGUF_WRITER_H_

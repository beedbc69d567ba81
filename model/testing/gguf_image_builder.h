// Builds GGUF images byte by byte, wrong ones too: what GgufFile must refuse cannot be written with
// WriteGguf. For tests only.
#ifndef RENGA_MODEL_TESTING_GGUF_IMAGE_BUILDER_H_
#define RENGA_MODEL_TESTING_GGUF_IMAGE_BUILDER_H_

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "absl/strings/string_view.h"
#include "model/gguf_format.h"

namespace renga::model {

class GgufImageBuilder {
 public:
  // The little-endian bytes of a number, and of a string with its length in front.
  template <typename T>
  static std::string Bytes(T value) {
    return std::string(reinterpret_cast<const char*>(&value), sizeof(value));
  }
  static std::string StringBytes(absl::string_view text);

  // What the header says; the counts are those of what was added unless set here.
  std::string magic = "GGUF";
  uint32_t version = 3;
  std::optional<uint64_t> key_value_count;
  std::optional<uint64_t> tensor_count;
  // Bytes of tensor data, and where it starts.
  uint64_t data_bytes = 0;
  uint64_t alignment = 32;

  // A key with any type number and any bytes.
  GgufImageBuilder& AddKey(absl::string_view key, uint32_t type, absl::string_view value);
  GgufImageBuilder& AddString(absl::string_view key, absl::string_view value);
  GgufImageBuilder& AddUint32(absl::string_view key, uint32_t value);
  // An array whose count need not be that of `elements`, which are raw bytes.
  GgufImageBuilder& AddArray(absl::string_view key, uint32_t element_type, uint64_t count,
                             absl::string_view elements);
  GgufImageBuilder& AddTensor(absl::string_view name, const std::vector<uint64_t>& dims,
                              uint32_t type, uint64_t offset);

  std::string Build() const;

 private:
  std::string key_values_;
  std::string tensors_;
  uint64_t added_key_values_ = 0;
  uint64_t added_tensors_ = 0;
};

}  // namespace renga::model

#endif  // RENGA_MODEL_TESTING_GGUF_IMAGE_BUILDER_H_

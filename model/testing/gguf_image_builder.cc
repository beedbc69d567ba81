#include "model/testing/gguf_image_builder.h"

#include "absl/strings/str_cat.h"

namespace renga::model {

std::string GgufImageBuilder::StringBytes(absl::string_view text) {
  return absl::StrCat(Bytes<uint64_t>(text.size()), text);
}

GgufImageBuilder& GgufImageBuilder::AddKey(absl::string_view key, uint32_t type,
                                           absl::string_view value) {
  absl::StrAppend(&key_values_, StringBytes(key), Bytes(type), value);
  ++added_key_values_;
  return *this;
}

GgufImageBuilder& GgufImageBuilder::AddString(absl::string_view key, absl::string_view value) {
  return AddKey(key, static_cast<uint32_t>(GgufValueType::kString), StringBytes(value));
}

GgufImageBuilder& GgufImageBuilder::AddUint32(absl::string_view key, uint32_t value) {
  return AddKey(key, static_cast<uint32_t>(GgufValueType::kUint32), Bytes(value));
}

GgufImageBuilder& GgufImageBuilder::AddArray(absl::string_view key, uint32_t element_type,
                                             uint64_t count, absl::string_view elements) {
  return AddKey(key, static_cast<uint32_t>(GgufValueType::kArray),
                absl::StrCat(Bytes(element_type), Bytes(count), elements));
}

GgufImageBuilder& GgufImageBuilder::AddTensor(absl::string_view name,
                                              const std::vector<uint64_t>& dims, uint32_t type,
                                              uint64_t offset) {
  absl::StrAppend(&tensors_, StringBytes(name), Bytes(static_cast<uint32_t>(dims.size())));
  for (const uint64_t dim : dims) absl::StrAppend(&tensors_, Bytes(dim));
  absl::StrAppend(&tensors_, Bytes(type), Bytes(offset));
  ++added_tensors_;
  return *this;
}

std::string GgufImageBuilder::Build() const {
  std::string image =
      absl::StrCat(magic, Bytes(version), Bytes(tensor_count.value_or(added_tensors_)),
                   Bytes(key_value_count.value_or(added_key_values_)), key_values_, tensors_);
  if (data_bytes == 0) return image;
  image.resize((image.size() + alignment - 1) / alignment * alignment + data_bytes);
  return image;
}

}  // namespace renga::model

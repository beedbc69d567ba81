#include "worker/engine/local_weights.h"

#include <cstring>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"

namespace renga::engine {

absl::StatusOr<std::unique_ptr<LocalWeights>> LocalWeights::Create(const model::GgufFile* file) {
  std::vector<std::unique_ptr<base::RandomAccessFile>> parts;
  for (const std::string& path : file->part_paths()) {
    RENGA_ASSIGN_OR_RETURN(auto part,
                           base::RandomAccessFile::Open(path, base::RandomAccessFile::Mode::kRead));
    parts.push_back(std::move(part));
  }
  return std::unique_ptr<LocalWeights>(new LocalWeights(file, std::move(parts)));
}

absl::StatusOr<const model::GgufTensor*> LocalWeights::Find(const std::string& name) const {
  const model::GgufTensor* tensor = file_->FindTensor(name);
  if (tensor == nullptr) {
    return absl::NotFoundError(absl::StrCat("the model file has no tensor ", name));
  }
  return tensor;
}

absl::StatusOr<base::DataType> LocalWeights::TensorType(const std::string& name) {
  RENGA_ASSIGN_OR_RETURN(const model::GgufTensor* tensor, Find(name));
  return tensor->type;
}

absl::Status LocalWeights::Read(const std::string& name, int64_t offset, std::span<std::byte> out) {
  RENGA_ASSIGN_OR_RETURN(const model::GgufTensor* tensor, Find(name));
  if (offset < 0 || offset > tensor->byte_size ||
      out.size() > static_cast<size_t>(tensor->byte_size - offset)) {
    return absl::OutOfRangeError(absl::StrCat("bytes ", offset, " + ", out.size(), " of tensor ",
                                              name, ", which has ", tensor->byte_size));
  }
  if (out.empty()) return absl::OkStatus();
  if (parts_.empty()) {
    std::memcpy(out.data(), file_->TensorBytes(*tensor).data() + offset, out.size());
    return absl::OkStatus();
  }
  return parts_[tensor->part]->ReadAt(tensor->file_offset + offset, out);
}

}  // namespace renga::engine

#include "worker/service/local_model.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "model/gguf_file.h"

namespace renga::worker {

absl::StatusOr<std::unique_ptr<LocalModel>> LocalModel::Open(const std::string& path) {
  RENGA_ASSIGN_OR_RETURN(const auto file, model::GgufFile::Open(path));
  auto local = std::unique_ptr<LocalModel>(new LocalModel);
  for (const std::string& part : file->part_paths()) {
    RENGA_ASSIGN_OR_RETURN(auto opened,
                           base::RandomAccessFile::Open(part, base::RandomAccessFile::Mode::kRead));
    local->parts_.push_back(std::move(opened));
  }
  for (const model::GgufTensor& tensor : file->tensors()) {
    local->places_[tensor.name] = {.part = static_cast<size_t>(tensor.part),
                                   .file_offset = tensor.file_offset,
                                   .byte_size = tensor.byte_size};
  }
  return local;
}

bool LocalModel::Has(const std::string& tensor, int64_t byte_size) const {
  const auto found = places_.find(tensor);
  return found != places_.end() && found->second.byte_size == byte_size;
}

absl::Status LocalModel::Read(const std::string& tensor, int64_t offset,
                              std::span<std::byte> out) const {
  const auto found = places_.find(tensor);
  if (found == places_.end()) {
    return absl::NotFoundError(absl::StrCat("no tensor ", tensor, " in the local model"));
  }
  const Place& place = found->second;
  if (offset < 0 || offset > place.byte_size ||
      static_cast<int64_t>(out.size()) > place.byte_size - offset) {
    return absl::OutOfRangeError(absl::StrCat("tensor ", tensor, " ends before that"));
  }
  return parts_[place.part]->ReadAt(place.file_offset + offset, out);
}

}  // namespace renga::worker

#include "model/gguf_file.h"

#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "base/status_macros.h"
#include "model/gguf_parser.h"

namespace renga::model {
namespace {

constexpr absl::string_view kSplitNumber = "split.no";
constexpr absl::string_view kSplitCount = "split.count";
constexpr absl::string_view kSplitTensors = "split.tensors.count";
constexpr int64_t kMaxParts = 99999;  // five digits in the name

// Where a file stands in a split model; count 1 for a file that is not split.
struct SplitPlace {
  int64_t number = 0;  // from 0
  int64_t count = 1;
  std::optional<int64_t> tensors;  // of the whole model
};

// Format errors in the split keys are errors of the file, whatever the getter calls them.
absl::StatusOr<std::optional<int64_t>> SplitKey(const GgufMetadata& metadata, absl::string_view key,
                                                int64_t max) {
  auto value = metadata.GetInt(key, 0, max);
  if (!value.ok()) return absl::DataLossError(value.status().message());
  return value;
}

absl::StatusOr<SplitPlace> ReadSplitPlace(const GgufMetadata& metadata) {
  SplitPlace place;
  RENGA_ASSIGN_OR_RETURN(const auto count, SplitKey(metadata, kSplitCount, kMaxParts));
  // Tools that merge parts leave a count of 0 or 1 behind.
  if (!count || *count <= 1) return place;
  place.count = *count;
  RENGA_ASSIGN_OR_RETURN(const auto number, SplitKey(metadata, kSplitNumber, *count - 1));
  if (!number) {
    return absl::DataLossError(
        absl::StrCat("metadata has ", kSplitCount, " but no ", kSplitNumber));
  }
  place.number = *number;
  RENGA_ASSIGN_OR_RETURN(place.tensors, SplitKey(metadata, kSplitTensors, int64_t{1} << 32));
  return place;
}

std::string PartSuffix(int64_t number, int64_t count) {
  return absl::StrFormat("-%05d-of-%05d.gguf", number + 1, count);
}

// What comes before "-00001-of-00003.gguf", or why the other parts cannot be found.
absl::StatusOr<std::string> PartPrefix(const std::string& path, const SplitPlace& place) {
  const std::string suffix = PartSuffix(place.number, place.count);
  if (!absl::EndsWith(path, suffix)) {
    return absl::InvalidArgumentError(
        absl::StrCat(path, ": this is part ", place.number + 1, " of ", place.count,
                     " of a split model, but its name does not end in ", suffix,
                     ", so the other parts cannot be found; give the parts their original names"));
  }
  return path.substr(0, path.size() - suffix.size());
}

// Metadata of a later part may only repeat what the first part says; split.no and the alignment
// are each file's own.
absl::Status MergeMetadata(const GgufMetadata& from, GgufMetadata& into) {
  for (const std::string& key : from.keys()) {
    if (key == kSplitNumber || key == "general.alignment") continue;
    const GgufValue* value = from.Find(key);
    const GgufValue* first = into.Find(key);
    if (first == nullptr) {
      into.Set(key, *value);
    } else if (*first != *value) {
      return absl::DataLossError(absl::StrCat(
          "this part does not belong to the first one: they differ in metadata key ", key));
    }
  }
  return absl::OkStatus();
}

absl::Status CheckSamePlace(const SplitPlace& place, const SplitPlace& expected) {
  if (place.number == expected.number && place.count == expected.count &&
      place.tensors == expected.tensors) {
    return absl::OkStatus();
  }
  return absl::DataLossError(absl::StrCat(
      "this part does not belong to the others: it says it is part ", place.number + 1, " of ",
      place.count, " of a model with ", place.tensors.value_or(0), " tensors, not part ",
      expected.number + 1, " of ", expected.count, " of one with ", expected.tensors.value_or(0)));
}

// A part's file with what its header says.
struct MappedPart {
  std::unique_ptr<base::MappedFile> mapping;
  GgufImage image;
  SplitPlace place;
};

absl::StatusOr<MappedPart> MapPart(const std::string& path) {
  MappedPart part;
  RENGA_ASSIGN_OR_RETURN(part.mapping, base::MappedFile::Open(path));
  auto image = ParseGgufImage(part.mapping->bytes());
  if (!image.ok()) return base::Annotate(image.status(), path);
  part.image = *std::move(image);
  const auto place = ReadSplitPlace(part.image.metadata);
  if (!place.ok()) return base::Annotate(place.status(), path);
  part.place = *place;
  return part;
}

}  // namespace

int64_t GgufTensor::row_count() const {
  int64_t count = 1;
  for (size_t i = 1; i < dims.size(); ++i) count *= dims[i];
  return count;
}

absl::Status GgufFile::AddPart(std::span<const std::byte> bytes, GgufImage image) {
  const int64_t part = static_cast<int64_t>(images_.size());
  if (part == 0) {
    metadata_ = std::move(image.metadata);
  } else {
    RENGA_RETURN_IF_ERROR(MergeMetadata(image.metadata, metadata_));
  }
  images_.push_back(bytes);
  for (GgufTensor& tensor : image.tensors) {
    tensor.part = part;
    if (!tensor_index_.try_emplace(tensor.name, tensors_.size()).second) {
      return absl::DataLossError(
          absl::StrCat("tensor ", tensor.name, " occurs in two parts of the model"));
    }
    tensors_.push_back(std::move(tensor));
  }
  return absl::OkStatus();
}

absl::StatusOr<std::unique_ptr<GgufFile>> GgufFile::Open(const std::string& path) {
  RENGA_ASSIGN_OR_RETURN(MappedPart opened, MapPart(path));
  const SplitPlace place = opened.place;
  std::unique_ptr<GgufFile> file(new GgufFile);
  if (place.count == 1) {
    RENGA_RETURN_IF_ERROR(file->AddPart(opened.mapping->bytes(), std::move(opened.image)));
    file->part_paths_.push_back(path);
    file->mappings_.push_back(std::move(opened.mapping));
    return file;
  }
  RENGA_ASSIGN_OR_RETURN(const std::string prefix, PartPrefix(path, place));
  SplitPlace expected = place;
  for (int64_t number = 0; number < place.count; ++number) {
    const std::string part_path = absl::StrCat(prefix, PartSuffix(number, place.count));
    MappedPart part;
    if (number == place.number) {
      part = std::move(opened);
    } else {
      RENGA_ASSIGN_OR_RETURN(part, MapPart(part_path));
    }
    expected.number = number;
    absl::Status added = CheckSamePlace(part.place, expected);
    if (added.ok()) added = file->AddPart(part.mapping->bytes(), std::move(part.image));
    if (!added.ok()) return base::Annotate(added, part_path);
    file->part_paths_.push_back(part_path);
    file->mappings_.push_back(std::move(part.mapping));
  }
  const int64_t tensor_count = static_cast<int64_t>(file->tensors_.size());
  if (place.tensors.value_or(tensor_count) != tensor_count) {
    return absl::DataLossError(absl::StrCat(path, ": the parts of this model hold ", tensor_count,
                                            " tensors, but ", kSplitTensors, " says ",
                                            *place.tensors));
  }
  return file;
}

absl::StatusOr<std::unique_ptr<GgufFile>> GgufFile::Parse(std::span<const std::byte> image) {
  RENGA_ASSIGN_OR_RETURN(GgufImage parsed, ParseGgufImage(image));
  std::unique_ptr<GgufFile> file(new GgufFile);
  RENGA_RETURN_IF_ERROR(file->AddPart(image, std::move(parsed)));
  return file;
}

const GgufTensor* GgufFile::FindTensor(absl::string_view name) const {
  const auto it = tensor_index_.find(name);
  return it == tensor_index_.end() ? nullptr : &tensors_[it->second];
}

std::span<const std::byte> GgufFile::TensorBytes(const GgufTensor& tensor) const {
  return images_[static_cast<size_t>(tensor.part)].subspan(static_cast<size_t>(tensor.file_offset),
                                                           static_cast<size_t>(tensor.byte_size));
}

int64_t GgufFile::total_tensor_bytes() const {
  int64_t total = 0;
  for (const GgufTensor& tensor : tensors_) total += tensor.byte_size;
  return total;
}

}  // namespace renga::model

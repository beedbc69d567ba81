#include "model/gguf_parser.h"

#include <algorithm>
#include <bit>
#include <cstdint>
#include <cstring>
#include <limits>
#include <string>
#include <type_traits>
#include <utility>

#include "absl/container/flat_hash_set.h"
#include "absl/status/status.h"
#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "model/gguf_format.h"

namespace renga::model {
namespace {

// What the decoded metadata may take in memory. A small number in the file must not become a
// large allocation, and real vocabularies stay below 100 MB.
constexpr int64_t kMaxMetadataBytes = int64_t{1} << 30;
// Far above what any model uses; long enough names would only make errors unreadable.
constexpr uint64_t kMaxKeyBytes = 65535;
constexpr uint64_t kMaxTensorNameBytes = 1024;
// The shortest possible records: name length, type and one byte; name length, dimension count,
// one dimension, type and offset.
constexpr uint64_t kMinKeyValueBytes = 8 + 4 + 1;
constexpr uint64_t kMinTensorBytes = 8 + 4 + 8 + 4 + 8;

// Names of tensor types that exist but that renga does not compute, so that the refusal can say
// more than a number.
std::string ForeignTypeName(uint32_t gguf_id) {
  static constexpr std::pair<uint32_t, absl::string_view> kForeign[] = {
      {9, "Q8_1"},   {15, "Q8_K"},  {16, "IQ2_XXS"}, {17, "IQ2_XS"}, {18, "IQ3_XXS"}, {19, "IQ1_S"},
      {21, "IQ3_S"}, {22, "IQ2_S"}, {24, "I8"},      {25, "I16"},    {26, "I32"},     {27, "I64"},
      {28, "F64"},   {29, "IQ1_M"}, {34, "TQ1_0"},   {35, "TQ2_0"},  {39, "MXFP4"}};
  for (const auto& [id, name] : kForeign) {
    if (id == gguf_id) return absl::StrCat(name, " (number ", gguf_id, ")");
  }
  return absl::StrCat("number ", gguf_id);
}

absl::Status BadFormat(absl::string_view message) { return absl::DataLossError(message); }

// Reads forward through an image and never past its end.
class ByteReader {
 public:
  explicit ByteReader(std::span<const std::byte> bytes) : bytes_(bytes) {}

  uint64_t remaining() const { return bytes_.size() - position_; }
  uint64_t position() const { return position_; }

  // `what` names the thing being read in the error.
  template <typename T>
  absl::Status Read(absl::string_view what, T& out) {
    static_assert(std::is_arithmetic_v<T>);
    if (remaining() < sizeof(T)) return EndsIn(what);
    std::memcpy(&out, bytes_.data() + position_, sizeof(T));
    position_ += sizeof(T);
    return absl::OkStatus();
  }

  // A length-prefixed string of at most `max_bytes`, as a view into the image.
  absl::Status ReadString(absl::string_view what, uint64_t max_bytes, absl::string_view& out) {
    uint64_t length = 0;
    RENGA_RETURN_IF_ERROR(Read(what, length));
    if (length > max_bytes) {
      return BadFormat(absl::StrCat("the length of ", what, " at byte ", position_ - 8, " is ",
                                    length, ", more than the ", max_bytes, " it may have"));
    }
    if (length > remaining()) return EndsIn(what);
    out = {reinterpret_cast<const char*>(bytes_.data()) + position_, static_cast<size_t>(length)};
    position_ += length;
    return absl::OkStatus();
  }

 private:
  absl::Status EndsIn(absl::string_view what) const {
    return BadFormat(absl::StrCat("the file is truncated: it ends within ", what, " (",
                                  bytes_.size(), " bytes, reading at ", position_, ")"));
  }

  std::span<const std::byte> bytes_;
  uint64_t position_ = 0;
};

// One pass over an image. Holds what the steps share; used once.
class ImageParser {
 public:
  explicit ImageParser(std::span<const std::byte> image) : image_(image), reader_(image) {}

  absl::StatusOr<GgufImage> Parse();

 private:
  absl::Status ReadHeader();
  absl::Status ReadKeyValue();
  absl::StatusOr<GgufValue> ReadValue(const std::string& key, GgufValueType type);
  absl::StatusOr<GgufArray> ReadArray(const std::string& key);
  template <typename Stored, typename Wide>
  absl::StatusOr<GgufValue> ReadScalar(const std::string& key);
  template <typename Stored, typename Wide>
  absl::StatusOr<GgufArray> ReadNumbers(const std::string& key, uint64_t count);
  absl::StatusOr<GgufArray> ReadBools(const std::string& key, uint64_t count);
  absl::StatusOr<GgufArray> ReadStrings(const std::string& key, uint64_t count);
  absl::Status ReadTensor();
  absl::Status ReadDims(GgufTensor& tensor);
  absl::Status MeasureTensor(GgufTensor& tensor);
  absl::Status PlaceTensors();
  absl::Status CheckOverlaps() const;
  absl::StatusOr<int64_t> Alignment() const;
  // Counts `count` items of `bytes` each against kMaxMetadataBytes.
  absl::Status Charge(const std::string& key, uint64_t count, uint64_t bytes);

  std::span<const std::byte> image_;
  ByteReader reader_;
  uint64_t tensor_count_ = 0;
  uint64_t key_value_count_ = 0;
  int64_t charged_bytes_ = 0;
  absl::flat_hash_set<std::string> tensor_names_;
  std::vector<uint64_t> relative_offsets_;  // as in the records, one per tensor
  GgufImage result_;
};

absl::StatusOr<GgufImage> ImageParser::Parse() {
  RENGA_RETURN_IF_ERROR(ReadHeader());
  for (uint64_t i = 0; i < key_value_count_; ++i) RENGA_RETURN_IF_ERROR(ReadKeyValue());
  for (uint64_t i = 0; i < tensor_count_; ++i) RENGA_RETURN_IF_ERROR(ReadTensor());
  RENGA_RETURN_IF_ERROR(PlaceTensors());
  RENGA_RETURN_IF_ERROR(CheckOverlaps());
  return std::move(result_);
}

absl::Status ImageParser::ReadHeader() {
  if (image_.size() < kGgufMagic.size()) {
    return BadFormat(absl::StrCat("not a GGUF file: it has only ", image_.size(), " bytes"));
  }
  uint32_t magic = 0;
  RENGA_RETURN_IF_ERROR(reader_.Read("the magic", magic));
  if (std::memcmp(&magic, kGgufMagic.data(), kGgufMagic.size()) != 0) {
    const absl::string_view start(reinterpret_cast<const char*>(image_.data()), kGgufMagic.size());
    return BadFormat(absl::StrCat("not a GGUF file: it begins with \"", absl::CHexEscape(start),
                                  "\" instead of \"GGUF\""));
  }
  uint32_t version = 0;
  RENGA_RETURN_IF_ERROR(reader_.Read("the version", version));
  if (version != 2 && version != 3) {
    const bool swapped = version != 0 && (version & 0xffff) == 0;
    return absl::UnimplementedError(
        swapped ? std::string("this GGUF file is big endian; only little endian ones are read")
                : absl::StrCat("GGUF version ", version, " is not read, only versions 2 and 3"));
  }
  RENGA_RETURN_IF_ERROR(reader_.Read("the tensor count", tensor_count_));
  RENGA_RETURN_IF_ERROR(reader_.Read("the metadata count", key_value_count_));
  if (key_value_count_ > reader_.remaining() / kMinKeyValueBytes) {
    return BadFormat(absl::StrCat("the file claims ", key_value_count_,
                                  " metadata keys, which its ", image_.size(),
                                  " bytes cannot hold"));
  }
  if (tensor_count_ > reader_.remaining() / kMinTensorBytes) {
    return BadFormat(absl::StrCat("the file claims ", tensor_count_, " tensors, which its ",
                                  image_.size(), " bytes cannot hold"));
  }
  return absl::OkStatus();
}

absl::Status ImageParser::Charge(const std::string& key, uint64_t count, uint64_t bytes) {
  const uint64_t left = static_cast<uint64_t>(kMaxMetadataBytes - charged_bytes_);
  if (count > left / bytes) {
    return BadFormat(absl::StrCat("metadata key ", key, " with ", count,
                                  " elements makes the metadata larger than ", kMaxMetadataBytes,
                                  " bytes"));
  }
  charged_bytes_ += static_cast<int64_t>(count * bytes);
  return absl::OkStatus();
}

absl::Status ImageParser::ReadKeyValue() {
  absl::string_view key_view;
  RENGA_RETURN_IF_ERROR(reader_.ReadString("a metadata key", kMaxKeyBytes, key_view));
  if (key_view.empty()) return BadFormat("a metadata key is empty");
  std::string key(key_view);
  if (result_.metadata.Find(key) != nullptr) {
    return BadFormat(absl::StrCat("metadata key ", absl::CHexEscape(key), " occurs twice"));
  }
  uint32_t type = 0;
  RENGA_RETURN_IF_ERROR(reader_.Read(absl::StrCat("the type of metadata key ", key), type));
  auto value = ReadValue(key, static_cast<GgufValueType>(type));
  RENGA_RETURN_IF_ERROR(value.status());
  result_.metadata.Set(std::move(key), *std::move(value));
  return absl::OkStatus();
}

template <typename Stored, typename Wide>
absl::StatusOr<GgufValue> ImageParser::ReadScalar(const std::string& key) {
  Stored stored{};
  RENGA_RETURN_IF_ERROR(reader_.Read(absl::StrCat("metadata key ", key), stored));
  return GgufValue(static_cast<Wide>(stored));
}

absl::StatusOr<GgufValue> ImageParser::ReadValue(const std::string& key, GgufValueType type) {
  switch (type) {
    case GgufValueType::kUint8:
      return ReadScalar<uint8_t, uint64_t>(key);
    case GgufValueType::kInt8:
      return ReadScalar<int8_t, int64_t>(key);
    case GgufValueType::kUint16:
      return ReadScalar<uint16_t, uint64_t>(key);
    case GgufValueType::kInt16:
      return ReadScalar<int16_t, int64_t>(key);
    case GgufValueType::kUint32:
      return ReadScalar<uint32_t, uint64_t>(key);
    case GgufValueType::kInt32:
      return ReadScalar<int32_t, int64_t>(key);
    case GgufValueType::kUint64:
      return ReadScalar<uint64_t, uint64_t>(key);
    case GgufValueType::kInt64:
      return ReadScalar<int64_t, int64_t>(key);
    case GgufValueType::kFloat32:
      return ReadScalar<float, double>(key);
    case GgufValueType::kFloat64:
      return ReadScalar<double, double>(key);
    case GgufValueType::kBool: {
      RENGA_ASSIGN_OR_RETURN(GgufArray one, ReadBools(key, 1));
      return GgufValue(static_cast<bool>(std::get<std::vector<bool>>(one)[0]));
    }
    case GgufValueType::kString: {
      RENGA_ASSIGN_OR_RETURN(GgufArray one, ReadStrings(key, 1));
      return GgufValue(std::move(std::get<std::vector<std::string>>(one)[0]));
    }
    case GgufValueType::kArray: {
      RENGA_ASSIGN_OR_RETURN(GgufArray array, ReadArray(key));
      return GgufValue(std::move(array));
    }
  }
  return BadFormat(
      absl::StrCat("metadata key ", key, " has the unknown type ", static_cast<uint32_t>(type)));
}

template <typename Stored, typename Wide>
absl::StatusOr<GgufArray> ImageParser::ReadNumbers(const std::string& key, uint64_t count) {
  if (count > reader_.remaining() / sizeof(Stored)) {
    return BadFormat(absl::StrCat("the file is truncated: metadata key ", key, " claims ", count,
                                  " elements, but only ", reader_.remaining(), " bytes are left"));
  }
  RENGA_RETURN_IF_ERROR(Charge(key, count, sizeof(Wide)));
  std::vector<Wide> numbers(count);
  for (Wide& number : numbers) {
    Stored stored{};
    RENGA_RETURN_IF_ERROR(reader_.Read("an array", stored));
    number = static_cast<Wide>(stored);
  }
  return GgufArray(std::move(numbers));
}

absl::StatusOr<GgufArray> ImageParser::ReadBools(const std::string& key, uint64_t count) {
  RENGA_ASSIGN_OR_RETURN(GgufArray bytes, (ReadNumbers<uint8_t, uint64_t>(key, count)));
  std::vector<bool> flags;
  flags.reserve(count);
  for (const uint64_t byte : std::get<std::vector<uint64_t>>(bytes)) {
    if (byte > 1) {
      return BadFormat(
          absl::StrCat("metadata key ", key, " holds a boolean that is ", byte, ", not 0 or 1"));
    }
    flags.push_back(byte == 1);
  }
  return GgufArray(std::move(flags));
}

absl::StatusOr<GgufArray> ImageParser::ReadStrings(const std::string& key, uint64_t count) {
  if (count > reader_.remaining() / sizeof(uint64_t)) {
    return BadFormat(absl::StrCat("the file is truncated: metadata key ", key, " claims ", count,
                                  " strings, but only ", reader_.remaining(), " bytes are left"));
  }
  RENGA_RETURN_IF_ERROR(Charge(key, count, sizeof(std::string)));
  const std::string what = absl::StrCat("metadata key ", key);
  std::vector<std::string> strings;
  strings.reserve(count);
  for (uint64_t i = 0; i < count; ++i) {
    absl::string_view text;
    RENGA_RETURN_IF_ERROR(reader_.ReadString(what, kMaxMetadataBytes, text));
    RENGA_RETURN_IF_ERROR(Charge(key, text.size(), 1));
    strings.emplace_back(text);
  }
  return GgufArray(std::move(strings));
}

absl::StatusOr<GgufArray> ImageParser::ReadArray(const std::string& key) {
  const std::string what = absl::StrCat("metadata key ", key);
  uint32_t type = 0;
  uint64_t count = 0;
  RENGA_RETURN_IF_ERROR(reader_.Read(what, type));
  RENGA_RETURN_IF_ERROR(reader_.Read(what, count));
  switch (static_cast<GgufValueType>(type)) {
    case GgufValueType::kUint8:
      return ReadNumbers<uint8_t, uint64_t>(key, count);
    case GgufValueType::kInt8:
      return ReadNumbers<int8_t, int64_t>(key, count);
    case GgufValueType::kUint16:
      return ReadNumbers<uint16_t, uint64_t>(key, count);
    case GgufValueType::kInt16:
      return ReadNumbers<int16_t, int64_t>(key, count);
    case GgufValueType::kUint32:
      return ReadNumbers<uint32_t, uint64_t>(key, count);
    case GgufValueType::kInt32:
      return ReadNumbers<int32_t, int64_t>(key, count);
    case GgufValueType::kUint64:
      return ReadNumbers<uint64_t, uint64_t>(key, count);
    case GgufValueType::kInt64:
      return ReadNumbers<int64_t, int64_t>(key, count);
    case GgufValueType::kFloat32:
      return ReadNumbers<float, double>(key, count);
    case GgufValueType::kFloat64:
      return ReadNumbers<double, double>(key, count);
    case GgufValueType::kBool:
      return ReadBools(key, count);
    case GgufValueType::kString:
      return ReadStrings(key, count);
    case GgufValueType::kArray:
      return absl::UnimplementedError(
          absl::StrCat("metadata key ", key, " is an array of arrays, which renga does not read"));
  }
  return BadFormat(absl::StrCat("metadata key ", key, " is an array of the unknown type ", type));
}

absl::Status ImageParser::ReadTensor() {
  absl::string_view name;
  RENGA_RETURN_IF_ERROR(reader_.ReadString("a tensor name", kMaxTensorNameBytes, name));
  if (name.empty()) return BadFormat("a tensor has no name");
  GgufTensor tensor;
  tensor.name = std::string(name);
  if (!tensor_names_.insert(tensor.name).second) {
    return BadFormat(absl::StrCat("tensor ", absl::CHexEscape(name), " occurs twice"));
  }
  RENGA_RETURN_IF_ERROR(ReadDims(tensor));
  const std::string what = absl::StrCat("the record of tensor ", name);
  uint32_t type = 0;
  uint64_t offset = 0;
  RENGA_RETURN_IF_ERROR(reader_.Read(what, type));
  RENGA_RETURN_IF_ERROR(reader_.Read(what, offset));
  const auto known_type = base::DataTypeFromGgufId(type);
  if (!known_type) {
    return absl::UnimplementedError(absl::StrCat("tensor ", tensor.name, " has type ",
                                                 ForeignTypeName(type),
                                                 ", which renga does not compute"));
  }
  tensor.type = *known_type;
  RENGA_RETURN_IF_ERROR(MeasureTensor(tensor));
  relative_offsets_.push_back(offset);
  result_.tensors.push_back(std::move(tensor));
  return absl::OkStatus();
}

absl::Status ImageParser::ReadDims(GgufTensor& tensor) {
  const std::string what = absl::StrCat("the dimensions of tensor ", tensor.name);
  uint32_t count = 0;
  RENGA_RETURN_IF_ERROR(reader_.Read(what, count));
  if (count < 1 || count > kGgufMaxDims) {
    return BadFormat(absl::StrCat("tensor ", tensor.name, " has ", count, " dimensions; 1 to ",
                                  kGgufMaxDims, " are possible"));
  }
  int64_t elements = 1;
  for (uint32_t i = 0; i < count; ++i) {
    uint64_t dim = 0;
    RENGA_RETURN_IF_ERROR(reader_.Read(what, dim));
    if (dim == 0) return BadFormat(absl::StrCat("tensor ", tensor.name, " has a dimension of 0"));
    if (dim > static_cast<uint64_t>(std::numeric_limits<int64_t>::max() / elements)) {
      return BadFormat(
          absl::StrCat("the dimensions of tensor ", tensor.name, " multiply to more than 2^63"));
    }
    elements *= static_cast<int64_t>(dim);
    tensor.dims.push_back(static_cast<int64_t>(dim));
  }
  return absl::OkStatus();
}

absl::Status ImageParser::MeasureTensor(GgufTensor& tensor) {
  const auto row_bytes = base::RowBytes(tensor.type, tensor.row_elements());
  if (!row_bytes.ok()) {
    return BadFormat(absl::StrCat("tensor ", tensor.name, ": ", row_bytes.status().message()));
  }
  if (*row_bytes > std::numeric_limits<int64_t>::max() / tensor.row_count()) {
    return BadFormat(absl::StrCat("tensor ", tensor.name, " would take more than 2^63 bytes"));
  }
  tensor.byte_size = *row_bytes * tensor.row_count();
  return absl::OkStatus();
}

absl::StatusOr<int64_t> ImageParser::Alignment() const {
  const auto alignment =
      result_.metadata.GetInt("general.alignment", kGgufMinAlignment, kGgufMaxAlignment);
  if (!alignment.ok()) return BadFormat(alignment.status().message());
  const int64_t value = alignment->value_or(kGgufDefaultAlignment);
  if (!std::has_single_bit(static_cast<uint64_t>(value))) {
    return BadFormat(absl::StrCat("general.alignment is ", value, ", not a power of two"));
  }
  return value;
}

// Tensor data begins at the next multiple of the alignment after the records.
absl::Status ImageParser::PlaceTensors() {
  RENGA_ASSIGN_OR_RETURN(const int64_t alignment_value, Alignment());
  const uint64_t alignment = static_cast<uint64_t>(alignment_value);
  const uint64_t data_start = (reader_.position() + alignment - 1) / alignment * alignment;
  const uint64_t data_bytes = data_start < image_.size() ? image_.size() - data_start : 0;
  for (size_t i = 0; i < result_.tensors.size(); ++i) {
    GgufTensor& tensor = result_.tensors[i];
    const uint64_t offset = relative_offsets_[i];
    if (offset % alignment != 0) {
      return BadFormat(absl::StrCat("tensor ", tensor.name, " is misaligned: its offset ", offset,
                                    " is no multiple of ", alignment));
    }
    const uint64_t size = static_cast<uint64_t>(tensor.byte_size);
    if (offset > data_bytes || size > data_bytes - offset) {
      return BadFormat(absl::StrCat("the file is truncated: tensor ", tensor.name, " needs ", size,
                                    " bytes at offset ", offset, " of the tensor data, which has ",
                                    data_bytes, " bytes"));
    }
    tensor.file_offset = static_cast<int64_t>(data_start + offset);
  }
  return absl::OkStatus();
}

absl::Status ImageParser::CheckOverlaps() const {
  std::vector<const GgufTensor*> by_offset;
  by_offset.reserve(result_.tensors.size());
  for (const GgufTensor& tensor : result_.tensors) by_offset.push_back(&tensor);
  std::sort(by_offset.begin(), by_offset.end(), [](const GgufTensor* a, const GgufTensor* b) {
    return a->file_offset < b->file_offset;
  });
  for (size_t i = 1; i < by_offset.size(); ++i) {
    const GgufTensor& before = *by_offset[i - 1];
    if (before.file_offset + before.byte_size > by_offset[i]->file_offset) {
      return BadFormat(
          absl::StrCat("tensors ", before.name, " and ", by_offset[i]->name, " overlap"));
    }
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<GgufImage> ParseGgufImage(std::span<const std::byte> image) {
  return ImageParser(image).Parse();
}

}  // namespace renga::model

#include "model/gguf_writer.h"

#include <bit>
#include <cerrno>
#include <cmath>
#include <cstdio>
#include <limits>
#include <type_traits>
#include <utility>

#include "absl/container/flat_hash_set.h"
#include "absl/strings/str_cat.h"
#include "base/file.h"
#include "base/status_macros.h"
#include "model/gguf_format.h"

namespace renga::model {
namespace {

template <typename T>
void Append(std::string& out, T value) {
  static_assert(std::is_arithmetic_v<T> || std::is_enum_v<T>);
  out.append(reinterpret_cast<const char*>(&value), sizeof(value));
}

void AppendString(std::string& out, absl::string_view text) {
  Append<uint64_t>(out, text.size());
  out.append(text.data(), text.size());
}

template <typename Narrow, typename Wide>
bool Fits(Wide value) {
  if constexpr (std::is_floating_point_v<Wide>) {
    return std::isnan(value) || static_cast<Wide>(static_cast<Narrow>(value)) == value;
  } else {
    return std::in_range<Narrow>(value);
  }
}

// An array of numbers with its type and count, as Narrow when every one fits.
template <typename Narrow, typename Wide>
void AppendNumbers(std::string& out, const std::vector<Wide>& numbers, GgufValueType narrow_type,
                   GgufValueType wide_type) {
  bool all_fit = true;
  for (const Wide number : numbers) all_fit = all_fit && Fits<Narrow>(number);
  Append(out, all_fit ? narrow_type : wide_type);
  Append<uint64_t>(out, numbers.size());
  for (const Wide number : numbers) {
    if (all_fit) {
      Append(out, static_cast<Narrow>(number));
    } else {
      Append(out, number);
    }
  }
}

template <typename Narrow, typename Wide>
void AppendNumber(std::string& out, Wide number, GgufValueType narrow_type,
                  GgufValueType wide_type) {
  if (Fits<Narrow>(number)) {
    Append(out, narrow_type);
    Append(out, static_cast<Narrow>(number));
  } else {
    Append(out, wide_type);
    Append(out, number);
  }
}

// Writes a value behind its type, by kind.
struct ValueAppender {
  std::string& out;

  void operator()(int64_t v) const {
    AppendNumber<int32_t>(out, v, GgufValueType::kInt32, GgufValueType::kInt64);
  }
  void operator()(uint64_t v) const {
    AppendNumber<uint32_t>(out, v, GgufValueType::kUint32, GgufValueType::kUint64);
  }
  void operator()(double v) const {
    AppendNumber<float>(out, v, GgufValueType::kFloat32, GgufValueType::kFloat64);
  }
  void operator()(bool v) const {
    Append(out, GgufValueType::kBool);
    Append<uint8_t>(out, v);
  }
  void operator()(const std::string& v) const {
    Append(out, GgufValueType::kString);
    AppendString(out, v);
  }
  void operator()(const GgufArray& v) const {
    Append(out, GgufValueType::kArray);
    std::visit(*this, v);
  }
  void operator()(const std::vector<int64_t>& v) const {
    AppendNumbers<int32_t>(out, v, GgufValueType::kInt32, GgufValueType::kInt64);
  }
  void operator()(const std::vector<uint64_t>& v) const {
    AppendNumbers<uint32_t>(out, v, GgufValueType::kUint32, GgufValueType::kUint64);
  }
  void operator()(const std::vector<double>& v) const {
    AppendNumbers<float>(out, v, GgufValueType::kFloat32, GgufValueType::kFloat64);
  }
  void operator()(const std::vector<bool>& v) const {
    Append(out, GgufValueType::kBool);
    Append<uint64_t>(out, v.size());
    for (const bool flag : v) Append<uint8_t>(out, flag);
  }
  void operator()(const std::vector<std::string>& v) const {
    Append(out, GgufValueType::kString);
    Append<uint64_t>(out, v.size());
    for (const std::string& text : v) AppendString(out, text);
  }
};

int64_t AlignUp(int64_t offset, int64_t alignment) {
  return (offset + alignment - 1) / alignment * alignment;
}

absl::StatusOr<int64_t> TensorByteSize(const GgufTensorToWrite& tensor) {
  if (tensor.name.empty() || tensor.type == base::DataType::kInvalid || tensor.dims.empty() ||
      tensor.dims.size() > kGgufMaxDims) {
    return absl::InvalidArgumentError(absl::StrCat("tensor \"", tensor.name,
                                                   "\" needs a name, a type and 1 to ",
                                                   kGgufMaxDims, " dimensions"));
  }
  RENGA_ASSIGN_OR_RETURN(int64_t bytes, base::RowBytes(tensor.type, tensor.dims[0]));
  for (const int64_t dim : tensor.dims) {
    if (dim < 1) {
      return absl::InvalidArgumentError(
          absl::StrCat("tensor ", tensor.name, " has the dimension ", dim));
    }
  }
  for (size_t i = 1; i < tensor.dims.size(); ++i) {
    if (__builtin_mul_overflow(bytes, tensor.dims[i], &bytes)) {
      return absl::InvalidArgumentError(absl::StrCat("tensor ", tensor.name, " is too large"));
    }
  }
  return bytes;
}

absl::StatusOr<int64_t> Alignment(const GgufMetadata& metadata) {
  RENGA_ASSIGN_OR_RETURN(
      const auto alignment,
      metadata.GetInt("general.alignment", kGgufMinAlignment, kGgufMaxAlignment));
  const int64_t value = alignment.value_or(kGgufDefaultAlignment);
  if (std::has_single_bit(static_cast<uint64_t>(value))) return value;
  return absl::InvalidArgumentError(
      absl::StrCat("general.alignment is ", value, ", not a power of two"));
}

// Where each tensor lies, counted from the start of the tensor data.
struct Layout {
  int64_t alignment = 0;
  std::vector<int64_t> offsets;
  std::vector<int64_t> sizes;
};

absl::StatusOr<Layout> LayOut(const GgufMetadata& metadata,
                              const std::vector<GgufTensorToWrite>& tensors) {
  Layout layout;
  RENGA_ASSIGN_OR_RETURN(layout.alignment, Alignment(metadata));
  absl::flat_hash_set<absl::string_view> names;
  int64_t offset = 0;
  for (const GgufTensorToWrite& tensor : tensors) {
    RENGA_ASSIGN_OR_RETURN(const int64_t size, TensorByteSize(tensor));
    if (!names.insert(tensor.name).second) {
      return absl::InvalidArgumentError(absl::StrCat("tensor ", tensor.name, " occurs twice"));
    }
    if (size > std::numeric_limits<int64_t>::max() / 2 - offset) {
      return absl::InvalidArgumentError("the tensors together are too large for a file");
    }
    layout.offsets.push_back(offset);
    layout.sizes.push_back(size);
    offset = AlignUp(offset + size, layout.alignment);
  }
  return layout;
}

std::string Header(const GgufMetadata& metadata, const std::vector<GgufTensorToWrite>& tensors,
                   const Layout& layout) {
  std::string header(kGgufMagic);
  Append<uint32_t>(header, 3);
  Append<uint64_t>(header, tensors.size());
  Append<uint64_t>(header, metadata.keys().size());
  for (const std::string& key : metadata.keys()) {
    AppendString(header, key);
    std::visit(ValueAppender{header}, *metadata.Find(key));
  }
  for (size_t i = 0; i < tensors.size(); ++i) {
    AppendString(header, tensors[i].name);
    Append<uint32_t>(header, static_cast<uint32_t>(tensors[i].dims.size()));
    for (const int64_t dim : tensors[i].dims) Append(header, dim);
    Append<uint32_t>(header, base::GetDataTypeInfo(tensors[i].type).gguf_id);
    Append(header, layout.offsets[i]);
  }
  header.resize(
      static_cast<size_t>(AlignUp(static_cast<int64_t>(header.size()), layout.alignment)));
  return header;
}

absl::Status WriteTensor(const GgufTensorToWrite& tensor, int64_t begin, int64_t size,
                         base::RandomAccessFile& file) {
  int64_t written = 0;
  const auto sink = [&](std::span<const std::byte> bytes) -> absl::Status {
    if (static_cast<int64_t>(bytes.size()) > size - written) {
      return absl::InvalidArgumentError(
          absl::StrCat("tensor ", tensor.name, " was given more than its ", size, " bytes"));
    }
    RENGA_RETURN_IF_ERROR(file.WriteAt(begin + written, bytes));
    written += static_cast<int64_t>(bytes.size());
    return absl::OkStatus();
  };
  RENGA_RETURN_IF_ERROR(tensor.fill(sink));
  if (written == size) return absl::OkStatus();
  return absl::InvalidArgumentError(
      absl::StrCat("tensor ", tensor.name, " was given ", written, " of its ", size, " bytes"));
}

absl::Status WriteAll(const std::string& path, const std::string& header, const Layout& layout,
                      const std::vector<GgufTensorToWrite>& tensors) {
  RENGA_ASSIGN_OR_RETURN(
      auto file, base::RandomAccessFile::Open(path, base::RandomAccessFile::Mode::kReadWrite));
  RENGA_RETURN_IF_ERROR(file->WriteAt(0, std::as_bytes(std::span(header))));
  const int64_t data_start = static_cast<int64_t>(header.size());
  for (size_t i = 0; i < tensors.size(); ++i) {
    const int64_t begin = data_start + layout.offsets[i];
    RENGA_RETURN_IF_ERROR(WriteTensor(tensors[i], begin, layout.sizes[i], *file));
    // The last tensor is padded too: some readers expect whole multiples of the alignment.
    const int64_t end = begin + layout.sizes[i];
    const std::vector<std::byte> padding(static_cast<size_t>(AlignUp(end, layout.alignment) - end));
    RENGA_RETURN_IF_ERROR(file->WriteAt(end, padding));
  }
  return absl::OkStatus();
}

}  // namespace

absl::Status WriteGguf(const std::string& path, const GgufMetadata& metadata,
                       const std::vector<GgufTensorToWrite>& tensors) {
  RENGA_ASSIGN_OR_RETURN(const Layout layout, LayOut(metadata, tensors));
  const std::string partial_path = absl::StrCat(path, ".partial");
  std::remove(partial_path.c_str());
  absl::Status written = WriteAll(partial_path, Header(metadata, tensors, layout), layout, tensors);
  if (written.ok() && std::rename(partial_path.c_str(), path.c_str()) != 0) {
    written = base::FileError(errno, "cannot replace", path);
  }
  if (!written.ok()) std::remove(partial_path.c_str());
  return written;
}

}  // namespace renga::model

// Reading GGUF model files (versions 2 and 3, little endian, split files included).
//
// The file is mapped, never copied. Nothing in it is trusted: every count, length, offset, type
// and shape is checked against the file's real size before it is used, no allocation is sized by
// an unchecked number, and a bad file gives a Status that names what is wrong. Format:
// https://github.com/ggml-org/ggml/blob/master/docs/gguf.md and shared GGUF-NOTES.
#ifndef RENGA_MODEL_GGUF_FILE_H_
#define RENGA_MODEL_GGUF_FILE_H_

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <variant>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "base/data_type.h"
#include "base/file.h"

namespace renga::model {

// A metadata value. All integer widths widen to int64/uint64, both floats to double.
using GgufArray = std::variant<std::vector<int64_t>, std::vector<uint64_t>, std::vector<double>,
                               std::vector<bool>, std::vector<std::string>>;
using GgufValue = std::variant<int64_t, uint64_t, double, bool, std::string, GgufArray>;

// The key-value part of a GGUF file. Getters: nullopt when the key is absent; kInvalidArgument
// naming the key when it is there with another type or out of the asked range.
class GgufMetadata {
 public:
  void Set(std::string key, GgufValue value);
  const GgufValue* Find(absl::string_view key) const;

  absl::StatusOr<std::optional<std::string>> GetString(absl::string_view key) const;
  absl::StatusOr<std::optional<bool>> GetBool(absl::string_view key) const;
  absl::StatusOr<std::optional<double>> GetFloat(absl::string_view key) const;
  // Any integer type whose value lies in [min, max].
  absl::StatusOr<std::optional<int64_t>> GetInt(absl::string_view key, int64_t min,
                                                int64_t max) const;
  // The array, or nullptr when absent; valid as long as the metadata.
  absl::StatusOr<const std::vector<std::string>*> GetStrings(absl::string_view key) const;
  absl::StatusOr<std::optional<std::vector<int64_t>>> GetInts(absl::string_view key) const;
  absl::StatusOr<std::optional<std::vector<double>>> GetFloats(absl::string_view key) const;

  // Keys in file order.
  const std::vector<std::string>& keys() const { return keys_; }

 private:
  std::vector<std::string> keys_;
  absl::flat_hash_map<std::string, GgufValue> values_;
};

// One tensor record. `dims` are innermost first: a linear layer with n_in inputs and n_out outputs
// has dims {n_in, n_out}, and each run of n_in numbers (a row) is contiguous.
struct GgufTensor {
  std::string name;
  base::DataType type = base::DataType::kInvalid;
  std::vector<int64_t> dims;
  int64_t byte_size = 0;
  int64_t part = 0;         // which file of a split model
  int64_t file_offset = 0;  // of the first byte, from the start of that file

  int64_t row_elements() const { return dims[0]; }
  int64_t row_count() const;  // product of the other dimensions
};

struct GgufImage;  // one parsed part: model/gguf_parser.h

// Immutable once opened; safe from any thread.
class GgufFile {
 public:
  // Opens `path`; when it is one part of a split model (NAME-00001-of-00003.gguf), all its parts.
  // kNotFound, kDataLoss (format), kInvalidArgument (a renamed part: the others can't be found),
  // kUnimplemented (a tensor type renga doesn't know, named; another GGUF version).
  static absl::StatusOr<std::unique_ptr<GgufFile>> Open(const std::string& path);
  // Parses one unsplit image that stays alive as long as the result (tests, fuzzing).
  static absl::StatusOr<std::unique_ptr<GgufFile>> Parse(std::span<const std::byte> image);

  const GgufMetadata& metadata() const { return metadata_; }
  const std::vector<GgufTensor>& tensors() const { return tensors_; }
  // nullptr when there is none of that name.
  const GgufTensor* FindTensor(absl::string_view name) const;
  // The tensor's bytes inside the mapping; valid as long as this object.
  std::span<const std::byte> TensorBytes(const GgufTensor& tensor) const;
  // Paths of the parts, in order; empty for Parse.
  const std::vector<std::string>& part_paths() const { return part_paths_; }
  int64_t total_tensor_bytes() const;

 private:
  GgufFile() = default;
  // Takes the next part of the model over; kDataLoss when it contradicts the parts before.
  absl::Status AddPart(std::span<const std::byte> bytes, GgufImage image);

  GgufMetadata metadata_;
  std::vector<GgufTensor> tensors_;
  absl::flat_hash_map<std::string, size_t> tensor_index_;
  std::vector<std::unique_ptr<base::MappedFile>> mappings_;
  std::vector<std::span<const std::byte>> images_;
  std::vector<std::string> part_paths_;
};

}  // namespace renga::model

#endif  // RENGA_MODEL_GGUF_FILE_H_

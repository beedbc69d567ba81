// The number formats of weights: one row per format in one table.
//
// A quantised format stores rows of numbers in blocks: a row of n numbers needs n to be a multiple
// of `block_elements` and takes n / block_elements * block_bytes bytes. Layouts are those of GGUF
// (see docs/FORMATS.md). A new format is one row here; without fast kernels it still runs.
#ifndef RENGA_BASE_DATA_TYPE_H_
#define RENGA_BASE_DATA_TYPE_H_

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "base/half_float.h"  // IWYU pragma: export: HalfToFloat and the like

namespace renga::base {

enum class DataType : uint8_t {
  kInvalid = 0,
  kF32,
  kF16,
  kBF16,
  kQ8_0,
  kQ4_0,
  kQ4_1,
  kQ5_0,
  kQ5_1,
  kQ2_K,
  kQ3_K,
  kQ4_K,
  kQ5_K,
  kQ6_K,
  kIQ4_NL,
  kIQ4_XS,
  kR3,  // renga's own, of 3 bits: in no file (docs/FORMATS.md)
};

struct DataTypeInfo {
  DataType type;
  absl::string_view name;  // as GGUF tools print it: "Q4_K"
  uint32_t gguf_id;        // the number in a GGUF tensor record; of kR3 none that a file may have
  int64_t block_elements;  // numbers per block; 1 for plain formats
  int64_t block_bytes;
  // Decodes `n` numbers (a multiple of block_elements) exactly as the format defines them.
  void (*to_float)(const std::byte* blocks, float* out, int64_t n);
};

// Every row that a file may have, kInvalid and kR3 not among them.
std::span<const DataTypeInfo> AllDataTypes();
// The row of `type`; `type` must not be kInvalid.
const DataTypeInfo& GetDataTypeInfo(DataType type);
// nullopt for formats renga does not know.
std::optional<DataType> DataTypeFromGgufId(uint32_t gguf_id);
// Letter case does not matter.
std::optional<DataType> DataTypeFromName(absl::string_view name);

// Bytes of a row of n numbers. kInvalidArgument when n is not a multiple of the block, is negative
// or the size overflows.
absl::StatusOr<int64_t> RowBytes(DataType type, int64_t n);

}  // namespace renga::base

#endif  // RENGA_BASE_DATA_TYPE_H_

// The numbers of the GGUF format that its reader and its writer share.
// Internal to model/.
#ifndef RENGA_MODEL_GGUF_FORMAT_H_
#define RENGA_MODEL_GGUF_FORMAT_H_

#include <bit>
#include <cstdint>

#include "absl/strings/string_view.h"

namespace renga::model {

static_assert(std::endian::native == std::endian::little, "GGUF numbers are copied as they lie");

inline constexpr absl::string_view kGgufMagic = "GGUF";
inline constexpr uint32_t kGgufMaxDims = 4;

// Tensors start at multiples of general.alignment, a power of two. Below 8, floats and the scales
// inside blocks would be misaligned in memory.
inline constexpr int64_t kGgufMinAlignment = 8;
inline constexpr int64_t kGgufDefaultAlignment = 32;
inline constexpr int64_t kGgufMaxAlignment = 1 << 20;

enum class GgufValueType : uint32_t {
  kUint8 = 0,
  kInt8 = 1,
  kUint16 = 2,
  kInt16 = 3,
  kUint32 = 4,
  kInt32 = 5,
  kFloat32 = 6,
  kBool = 7,
  kString = 8,
  kArray = 9,
  kUint64 = 10,
  kInt64 = 11,
  kFloat64 = 12,
};

}  // namespace renga::model

#endif  // RENGA_MODEL_GGUF_FORMAT_H_

// The number formats that a KV cache may have, and what a head takes in each.
#ifndef RENGA_BASE_KV_TYPE_H_
#define RENGA_BASE_KV_TYPE_H_

#include <cstdint>

#include "base/data_type.h"

namespace renga::base {

// Numbers of a head that share a scale (a half) in a kQ8_0 cache; the last group may be shorter.
inline constexpr int64_t kKvScaleElements = 32;

// kF16, kF32 or kQ8_0.
inline bool IsKvType(DataType type) {
  return type == DataType::kF16 || type == DataType::kF32 || type == DataType::kQ8_0;
}

// Bytes of the key, or of the value, of one token and KV head; `type` is a KV type.
inline int64_t KvHeadBytes(DataType type, int64_t head_dim) {
  if (type == DataType::kQ8_0) {
    return head_dim + 2 * ((head_dim + kKvScaleElements - 1) / kKvScaleElements);
  }
  return head_dim * GetDataTypeInfo(type).block_bytes;
}

}  // namespace renga::base

#endif  // RENGA_BASE_KV_TYPE_H_

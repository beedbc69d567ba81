// How keys and values lie in the paged cache: what StoreKv writes and Attention reads.
//
// Of one block and KV head, the values are [token][head_dim], the keys [head_dim][token]: so that a
// vector register holds neighbouring numbers of a value, and of a key's number the neighbouring
// tokens, and no sum crosses lanes. Of kQ8_0, int8 codes lie like that, and behind them a scale
// (half) for each 32 numbers of a head: values [token][group], keys [group][token].
#ifndef RENGA_WORKER_KERNELS_KV_LAYOUT_H_
#define RENGA_WORKER_KERNELS_KV_LAYOUT_H_

#include <cstddef>
#include <cstdint>

#include "base/data_type.h"
#include "base/kv_type.h"
#include "worker/kernels/backend.h"

namespace renga::kernels {

struct KvLayout {
  explicit KvLayout(const KvCacheView& cache)
      : type(cache.type), tokens(cache.block_tokens), head_dim(cache.head_dim) {}

  // Of kQ8_0: scales of a head.
  int64_t groups() const {
    return (head_dim + base::kKvScaleElements - 1) / base::kKvScaleElements;
  }
  // Bytes of the keys, or of the values, of one block and KV head.
  int64_t head_bytes() const { return tokens * base::KvHeadBytes(type, head_dim); }

  base::DataType type;
  int64_t tokens;
  int64_t head_dim;
};

// Writes the key and the value of one token and KV head; `keys` and `values` are the cells of its
// block and head.
void StoreKvHead(const KvLayout& layout, const float* key, const float* value, int64_t token,
                 std::byte* keys, std::byte* values);

// One number of a key or of a value.
float LoadKey(const KvLayout& layout, const std::byte* keys, int64_t token, int64_t dim);
float LoadValue(const KvLayout& layout, const std::byte* values, int64_t token, int64_t dim);

}  // namespace renga::kernels

#endif  // RENGA_WORKER_KERNELS_KV_LAYOUT_H_

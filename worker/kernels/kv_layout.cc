#include "worker/kernels/kv_layout.h"

#include <algorithm>
#include <cmath>
#include <cstring>

namespace renga::kernels {
namespace {

using base::DataType;
using base::kKvScaleElements;

void StoreNumber(DataType type, float number, int64_t index, std::byte* cells) {
  if (type == DataType::kF32) {
    std::memcpy(cells + 4 * index, &number, 4);
    return;
  }
  const uint16_t half = base::FloatToHalf(number);
  std::memcpy(cells + 2 * index, &half, 2);
}

float LoadNumber(DataType type, int64_t index, const std::byte* cells) {
  if (type == DataType::kF32) {
    float number;
    std::memcpy(&number, cells + 4 * index, 4);
    return number;
  }
  uint16_t half;
  std::memcpy(&half, cells + 2 * index, 2);
  return base::HalfToFloat(half);
}

// A group's scale: its largest magnitude becomes 127. Rounded to a half before it divides, so that
// code * scale is what was meant.
float ScaleOf(const float* numbers, int64_t count) {
  float peak = 0;
  for (int64_t i = 0; i < count; ++i) peak = std::max(peak, std::fabs(numbers[i]));
  return base::HalfToFloat(base::FloatToHalf(std::min(peak / 127.0F, 65504.0F)));
}

int8_t CodeOf(float number, float scale) {
  if (!(scale > 0)) return 0;
  // Ties to even, as the processor rounds; NaN becomes a bound.
  return static_cast<int8_t>(std::nearbyint(std::max(-127.0F, std::min(127.0F, number / scale))));
}

}  // namespace

void StoreKvHead(const KvLayout& layout, const float* key, const float* value, int64_t token,
                 std::byte* keys, std::byte* values) {
  if (layout.type != DataType::kQ8_0) {
    for (int64_t d = 0; d < layout.head_dim; ++d) {
      StoreNumber(layout.type, key[d], d * layout.tokens + token, keys);
      StoreNumber(layout.type, value[d], token * layout.head_dim + d, values);
    }
    return;
  }
  const int64_t codes = layout.tokens * layout.head_dim;
  for (int64_t group = 0; group < layout.groups(); ++group) {
    const int64_t first = group * kKvScaleElements;
    const int64_t count = std::min(kKvScaleElements, layout.head_dim - first);
    const float key_scale = ScaleOf(key + first, count);
    const float value_scale = ScaleOf(value + first, count);
    StoreNumber(DataType::kF16, key_scale, group * layout.tokens + token, keys + codes);
    StoreNumber(DataType::kF16, value_scale, token * layout.groups() + group, values + codes);
    for (int64_t d = first; d < first + count; ++d) {
      keys[d * layout.tokens + token] = static_cast<std::byte>(CodeOf(key[d], key_scale));
      values[token * layout.head_dim + d] = static_cast<std::byte>(CodeOf(value[d], value_scale));
    }
  }
}

float LoadKey(const KvLayout& layout, const std::byte* keys, int64_t token, int64_t dim) {
  const int64_t index = dim * layout.tokens + token;
  if (layout.type != DataType::kQ8_0) return LoadNumber(layout.type, index, keys);
  const float scale = LoadNumber(DataType::kF16, dim / kKvScaleElements * layout.tokens + token,
                                 keys + layout.tokens * layout.head_dim);
  return scale * static_cast<float>(static_cast<int8_t>(keys[index]));
}

float LoadValue(const KvLayout& layout, const std::byte* values, int64_t token, int64_t dim) {
  const int64_t index = token * layout.head_dim + dim;
  if (layout.type != DataType::kQ8_0) return LoadNumber(layout.type, index, values);
  const float scale = LoadNumber(DataType::kF16, token * layout.groups() + dim / kKvScaleElements,
                                 values + layout.tokens * layout.head_dim);
  return scale * static_cast<float>(static_cast<int8_t>(values[index]));
}

}  // namespace renga::kernels

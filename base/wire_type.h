// The number formats in which activations travel between workers, and the encoders to them.
//
// Narrow formats halve or quarter what a hop carries and change the last bits of what arrives; the
// decoders are those of base/data_type.h.
#ifndef RENGA_BASE_WIRE_TYPE_H_
#define RENGA_BASE_WIRE_TYPE_H_

#include <cstddef>
#include <span>

#include "base/data_type.h"

namespace renga::base {

// kF32, kF16 or kQ8_0.
inline bool IsWireType(DataType type) {
  return type == DataType::kF32 || type == DataType::kF16 || type == DataType::kQ8_0;
}

// Encodes `numbers` (a multiple of the format's block) to exactly their bytes in `out`; `type` is a
// wire type. Any float may come. What does not become itself, rounded:
// - kF16: finite numbers beyond 65504 become that, with their sign; infinities and NaN stay.
// - kQ8_0: an infinity or NaN makes its whole block NaN, so that a fault stays to be seen; numbers
//   beyond 127 * 65504 become that; a block whose largest magnitude is below 2^-25 * 127 becomes 0.
void EncodeForWire(DataType type, std::span<const float> numbers, std::span<std::byte> out);

}  // namespace renga::base

#endif  // RENGA_BASE_WIRE_TYPE_H_

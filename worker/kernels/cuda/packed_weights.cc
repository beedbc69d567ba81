#include "worker/kernels/cuda/packed_weights.h"

#include <algorithm>
#include <cstring>
#include <limits>

#include "worker/kernels/cuda/kernel_list.h"

namespace renga::kernels::cuda {
namespace {

using base::DataType;
using Planes = std::array<std::byte*, kMostPlanes>;

// Bytes of a plane, for each group of 32 numbers or for each 8 groups.
struct PlaneSize {
  int64_t group = 0;
  int64_t block = 0;
};
using PlaneSizes = std::array<PlaneSize, kMostPlanes>;

PlaneSizes SizesOf(DataType type) {
  switch (type) {
    case DataType::kF32:
      return {{{.group = 128}}};
    case DataType::kF16:
    case DataType::kBF16:
      return {{{.group = 64}}};
    case DataType::kQ8_0:
      return {{{.group = 32}, {.group = 2}}};
    case DataType::kQ4_0:
    case DataType::kIQ4_NL:
      return {{{.group = 16}, {.group = 2}}};
    case DataType::kQ4_1:
      return {{{.group = 16}, {.group = 4}}};
    case DataType::kQ5_0:
      return {{{.group = 16}, {.group = 4}, {.group = 2}}};
    case DataType::kQ5_1:
      return {{{.group = 16}, {.group = 4}, {.group = 4}}};
    case DataType::kQ2_K:
      return {{{.group = 8}, {.group = 2}, {.block = 4}}};
    case DataType::kQ3_K:
      return {{{.group = 8}, {.group = 4}, {.group = 1}, {.block = 6}}};
    case DataType::kQ4_K:
      return {{{.group = 16}, {.block = 16}}};
    case DataType::kQ5_K:
      return {{{.group = 16}, {.group = 4}, {.block = 16}}};
    case DataType::kQ6_K:
      return {{{.group = 16}, {.group = 8}, {.group = 2}, {.block = 2}}};
    case DataType::kIQ4_XS:
      return {{{.group = 16}, {.block = 8}}};
    case DataType::kR3:
    case DataType::kInvalid:
      break;
  }
  return {};
}

constexpr int64_t kTooLarge = std::numeric_limits<int64_t>::max();

uint32_t Byte(const std::byte* p) { return std::to_integer<uint32_t>(*p); }
void PutByte(std::byte* p, uint32_t value) { *p = static_cast<std::byte>(value); }

// ---- Codes of 32 numbers into the planes of a group ---------------------------------------------

void PutNibbles(const std::array<uint32_t, kGroup>& codes, std::byte* to) {
  for (size_t i = 0; i < 16; ++i) PutByte(to + i, (codes[i] & 15) | (codes[i + 16] & 15) << 4);
}
// Bit `from` of every code: bit i of byte b is that of code 4 i + b.
void PutHighBits(const std::array<uint32_t, kGroup>& codes, int from, std::byte* to) {
  for (size_t b = 0; b < 4; ++b) {
    uint32_t bits = 0;
    for (size_t i = 0; i < 8; ++i) bits |= ((codes[4 * i + b] >> from) & 1) << i;
    PutByte(to + b, bits);
  }
}
// Bits `from` and `from + 1`: bits 2 i and 2 i + 1 of byte 4 k + b are those of code
// 4 (2 i + k) + b.
void PutPairs(const std::array<uint32_t, kGroup>& codes, int from, std::byte* to) {
  for (size_t k = 0; k < 2; ++k) {
    for (size_t b = 0; b < 4; ++b) {
      uint32_t bits = 0;
      for (size_t i = 0; i < 4; ++i) {
        bits |= ((codes[4 * (2 * i + k) + b] >> from) & 3) << (2 * i);
      }
      PutByte(to + 4 * k + b, bits);
    }
  }
}

// ---- Codes of 32 numbers from the file's blocks (docs/FORMATS.md) -------------------------------

// The nibbles of Q4_0 and its like: 16 low ones, then the high ones.
std::array<uint32_t, kGroup> SplitNibbles(const std::byte* from) {
  std::array<uint32_t, kGroup> codes;
  for (size_t i = 0; i < 16; ++i) {
    codes[i] = Byte(from + i) & 15;
    codes[i + 16] = Byte(from + i) >> 4;
  }
  return codes;
}
// Group `group` of Q4_K's nibbles: each 32 bytes hold two groups.
std::array<uint32_t, kGroup> BlockNibbles(const std::byte* from, size_t group) {
  std::array<uint32_t, kGroup> codes;
  for (size_t i = 0; i < kGroup; ++i) {
    codes[i] = (Byte(from + group / 2 * 32 + i) >> (group % 2 * 4)) & 15;
  }
  return codes;
}
// Group `group` of 2-bit codes in 64 bytes: each 32 bytes hold four groups.
uint32_t TwoBits(const std::byte* from, size_t group, size_t i) {
  return (Byte(from + group / 4 * 32 + i) >> (group % 4 * 2)) & 3;
}

// Nibbles with a fifth bit in 4 bytes before them.
void PackFiveBits(const std::byte* high, const std::byte* nibbles, std::byte* low_plane,
                  std::byte* high_plane) {
  std::array<uint32_t, kGroup> codes = SplitNibbles(nibbles);
  uint32_t bits;
  std::memcpy(&bits, high, 4);
  for (size_t i = 0; i < kGroup; ++i) codes[i] |= ((bits >> i) & 1) << 4;
  PutNibbles(codes, low_plane);
  PutHighBits(codes, 4, high_plane);
}

// ---- Blocks of 32: `g` is the group in its row --------------------------------------------------

void PackBlock32(DataType type, const std::byte* block, int64_t g, const Planes& planes) {
  std::byte* const codes = planes[0] + 16 * g;
  switch (type) {
    case DataType::kQ4_0:  // nibbles | scale
    case DataType::kIQ4_NL:
      std::memcpy(codes, block + 2, 16);
      std::memcpy(planes[1] + 2 * g, block, 2);
      return;
    case DataType::kQ4_1:  // nibbles | scale, minimum
      std::memcpy(codes, block + 4, 16);
      std::memcpy(planes[1] + 4 * g, block, 4);
      return;
    case DataType::kQ5_0:  // nibbles | high bits | scale
      PackFiveBits(block + 2, block + 6, codes, planes[1] + 4 * g);
      std::memcpy(planes[2] + 2 * g, block, 2);
      return;
    case DataType::kQ5_1:  // nibbles | high bits | scale, minimum
      PackFiveBits(block + 4, block + 8, codes, planes[1] + 4 * g);
      std::memcpy(planes[2] + 4 * g, block, 4);
      return;
    default:
      return;
  }
}

// ---- Blocks of 256: `b` is the block in its row -------------------------------------------------

// Pairs | scale and minimum nibbles of the halves | scale, minimum.
void PackQ2K(const std::byte* block, int64_t b, const Planes& planes) {
  for (size_t group = 0; group < 8; ++group) {
    std::array<uint32_t, kGroup> codes;
    for (size_t i = 0; i < kGroup; ++i) codes[i] = TwoBits(block + 16, group, i);
    const int64_t g = 8 * b + static_cast<int64_t>(group);
    PutPairs(codes, 0, planes[0] + 8 * g);
    std::memcpy(planes[1] + 2 * g, block + 2 * group, 2);
  }
  std::memcpy(planes[2] + 4 * b, block + 80, 4);
}

// Pairs | high bits | low nibbles of the halves' scales | scale, then the two high bits of each
// half's scale, four bits a group.
void PackQ3K(const std::byte* block, int64_t b, const Planes& planes) {
  const std::byte* const scales = block + 96;
  std::array<uint32_t, 2> high_scales = {};  // of groups 0-3 and 4-7
  for (size_t group = 0; group < 8; ++group) {
    std::array<uint32_t, kGroup> codes;
    for (size_t i = 0; i < kGroup; ++i) {
      codes[i] = TwoBits(block + 32, group, i) | ((Byte(block + i) >> group) & 1) << 2;
    }
    const int64_t g = 8 * b + static_cast<int64_t>(group);
    PutPairs(codes, 0, planes[0] + 8 * g);
    PutHighBits(codes, 2, planes[1] + 4 * g);
    uint32_t low = 0;
    for (size_t half = 0; half < 2; ++half) {
      const size_t n = 2 * group + half;
      low |= ((Byte(scales + n % 8) >> (n / 8 * 4)) & 15) << (4 * half);
      const uint32_t high = (Byte(scales + 8 + n % 4) >> (n / 4 * 2)) & 3;
      high_scales[group / 4] |= high << (group % 4 * 4 + 2 * half);
    }
    PutByte(planes[2] + g, low);
  }
  std::byte* const of_block = planes[3] + 6 * b;
  std::memcpy(of_block, block + 108, 2);
  for (size_t i = 0; i < 4; ++i) PutByte(of_block + 2 + i, high_scales[i / 2] >> (i % 2 * 8));
}

// Nibbles | the block's first 16 bytes: scale, minimum, 8 pairs of 6 bits.
void PackQ4K(const std::byte* block, int64_t b, const Planes& planes) {
  for (size_t group = 0; group < 8; ++group) {
    const int64_t g = 8 * b + static_cast<int64_t>(group);
    PutNibbles(BlockNibbles(block + 16, group), planes[0] + 16 * g);
  }
  std::memcpy(planes[1] + 16 * b, block, 16);
}

// Nibbles | high bits | as Q4_K.
void PackQ5K(const std::byte* block, int64_t b, const Planes& planes) {
  for (size_t group = 0; group < 8; ++group) {
    std::array<uint32_t, kGroup> codes = BlockNibbles(block + 48, group);
    for (size_t i = 0; i < kGroup; ++i) {
      codes[i] |= ((Byte(block + 16 + i) >> group) & 1) << 4;
    }
    const int64_t g = 8 * b + static_cast<int64_t>(group);
    PutNibbles(codes, planes[0] + 16 * g);
    PutHighBits(codes, 4, planes[1] + 4 * g);
  }
  std::memcpy(planes[2] + 16 * b, block, 16);
}

// Nibbles | high pairs | scales of the halves | scale.
void PackQ6K(const std::byte* block, int64_t b, const Planes& planes) {
  for (size_t group = 0; group < 8; ++group) {
    std::array<uint32_t, kGroup> codes;
    for (size_t i = 0; i < kGroup; ++i) {
      // Each 64 bytes of nibbles hold four groups: two in the low halves, two in the high ones.
      const uint32_t low =
          Byte(block + group / 4 * 64 + group % 2 * 32 + i) >> (group % 4 / 2 * 4) & 15;
      codes[i] = low | TwoBits(block + 128, group, i) << 4;
    }
    const int64_t g = 8 * b + static_cast<int64_t>(group);
    PutNibbles(codes, planes[0] + 16 * g);
    PutPairs(codes, 4, planes[1] + 8 * g);
    std::memcpy(planes[2] + 2 * g, block + 192 + 2 * group, 2);
  }
  std::memcpy(planes[3] + 2 * b, block + 208, 2);
}

// Nibbles | the block's first 8 bytes: scale, high pairs and low nibbles of 8 scales.
void PackIQ4XS(const std::byte* block, int64_t b, const Planes& planes) {
  for (int64_t group = 0; group < 8; ++group) {
    std::memcpy(planes[0] + 16 * (8 * b + group), block + 8 + 16 * group, 16);
  }
  std::memcpy(planes[1] + 8 * b, block, 8);
}

void PackBlock256(DataType type, const std::byte* block, int64_t b, const Planes& planes) {
  switch (type) {
    case DataType::kQ2_K:
      return PackQ2K(block, b, planes);
    case DataType::kQ3_K:
      return PackQ3K(block, b, planes);
    case DataType::kQ4_K:
      return PackQ4K(block, b, planes);
    case DataType::kQ5_K:
      return PackQ5K(block, b, planes);
    case DataType::kQ6_K:
      return PackQ6K(block, b, planes);
    case DataType::kIQ4_XS:
      return PackIQ4XS(block, b, planes);
    default:
      return;
  }
}

// ---- Parts of 16 bytes, those of 8 neighbouring groups side by side -----------------------------

// Where part `part` of group `g` lies: PartAt of device/formats.h.
int64_t PartOffset(int64_t groups, int64_t parts, int64_t g, int64_t part) {
  const int64_t first = g / kChains * kChains;
  const int64_t width = std::min<int64_t>(kChains, groups - first);
  return (first * parts + part * width + (g - first)) * 16;
}

void PackQ8_0(std::span<const std::byte> row, const Planes& planes) {
  const auto groups = static_cast<int64_t>(row.size() / 34);
  for (int64_t g = 0; g < groups; ++g) {
    const std::byte* const block = row.data() + 34 * g;
    for (int64_t part = 0; part < 2; ++part) {
      std::memcpy(planes[0] + PartOffset(groups, 2, g, part), block + 2 + 16 * part, 16);
    }
    std::memcpy(planes[1] + 2 * g, block, 2);
  }
}

void PackPlain(int64_t groups, int64_t parts, std::span<const std::byte> row,
               const Planes& planes) {
  const auto bytes = static_cast<int64_t>(row.size());
  for (int64_t at = 0; at < groups * parts * 16; at += 16) {
    std::byte* const to = planes[0] + PartOffset(groups, parts, at / 16 / parts, at / 16 % parts);
    const int64_t count = std::clamp<int64_t>(bytes - at, 0, 16);
    if (count < 16) std::memset(to, 0, 16);
    if (count > 0) std::memcpy(to, row.data() + at, static_cast<size_t>(count));
  }
}

}  // namespace

PlaneLayout LayoutOf(DataType type, int64_t rows, int64_t columns) {
  PlaneLayout layout;
  layout.groups = columns / kGroup + (columns % kGroup != 0 ? 1 : 0);
  const PlaneSizes sizes = SizesOf(type);
  const int64_t blocks = (layout.groups + kChains - 1) / kChains;
  for (size_t p = 0; p < kMostPlanes; ++p) {
    layout.offset[p] = layout.bytes;
    int64_t bytes = 0;
    if (__builtin_mul_overflow(layout.groups, sizes[p].group, &layout.row_bytes[p]) ||
        __builtin_add_overflow(layout.row_bytes[p], blocks * sizes[p].block,
                               &layout.row_bytes[p]) ||
        __builtin_mul_overflow(layout.row_bytes[p], rows, &bytes) ||
        bytes > kTooLarge - kPlaneAlignment - layout.bytes) {
      layout.bytes = kTooLarge;
      return layout;
    }
    layout.bytes += (bytes + kPlaneAlignment - 1) / kPlaneAlignment * kPlaneAlignment;
  }
  return layout;
}

void PackRow(DataType type, int64_t columns, std::span<const std::byte> row, const Planes& planes) {
  const base::DataTypeInfo& info = base::GetDataTypeInfo(type);
  const int64_t groups = (columns + kGroup - 1) / kGroup;
  if (info.block_elements == 1) {
    return PackPlain(groups, kGroup * info.block_bytes / 16, row, planes);
  }
  if (type == DataType::kQ8_0) return PackQ8_0(row, planes);
  const int64_t blocks = columns / info.block_elements;
  for (int64_t b = 0; b < blocks; ++b) {
    const std::byte* const block = row.data() + b * info.block_bytes;
    if (info.block_elements == kGroup) {
      PackBlock32(type, block, b, planes);
    } else {
      PackBlock256(type, block, b, planes);
    }
  }
}

}  // namespace renga::kernels::cuda

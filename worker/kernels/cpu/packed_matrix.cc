#include "worker/kernels/cpu/packed_matrix.h"

#include <algorithm>
#include <cstring>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"

namespace renga::kernels::cpu {
namespace {

// How the fifth bits of a field's codes are put into the order of their use.
enum class FifthBits : int8_t {
  kNone,
  kSpread,  // one of each number of a block of 32
  // Those that a section of Q5_K uses.
  kSection0,
  kSection1,
  kSection2,
  kSection3,
};

// A field of a row's block. Packed fields follow each other without gaps; where the file has them
// in another order, each says where it is there.
struct Field {
  int16_t bytes;
  int16_t chunk;  // bytes that stay together
  FifthBits fifth_bits = FifthBits::kNone;
  int16_t at = -1;  // in the file's block; -1: after the field before it
};

struct Fields {
  int count;
  Field list[50];
};

// Codes in the order in which kernels take them (Q6K in formats_256.h), so that memory is read
// forwards, line after line: a processor fetches ahead of such reading only. For each half of the
// block and each half of its 32 bytes, 4 bytes at a time: low nibbles of the first and second
// quarter, then the high bits.
constexpr Fields FieldsOfQ6K() {
  Fields fields = {1, {{16, 4, FifthBits::kNone, 192}}};
  for (int step = 0; step < 16; ++step) {
    const int half = step / 8, chunk = step % 8;
    const int low = 64 * half + 4 * chunk, high = 128 + 32 * half + 4 * chunk;
    for (const int at : {low, low + 32, high}) {
      fields.list[fields.count++] = {4, 4, FifthBits::kNone, static_cast<int16_t>(at)};
    }
  }
  fields.list[fields.count++] = {2, 2, FifthBits::kNone, 208};
  return fields;
}

// The same for Q5K: each section's fifth bits before its nibbles.
constexpr Fields FieldsOfQ5K() {
  Fields fields = {3, {{2, 2}, {2, 2}, {12, 4}}};
  for (int section = 0; section < 4; ++section) {
    const auto bits = static_cast<FifthBits>(static_cast<int>(FifthBits::kSection0) + section);
    fields.list[fields.count++] = {8, 4, bits, 16};
    fields.list[fields.count++] = {32, 4, FifthBits::kNone,
                                   static_cast<int16_t>(48 + 32 * section)};
  }
  return fields;
}

constexpr Field kHalf = {2, 2};

// In the order of the file's blocks (GGUF, see docs/FORMATS.md).
Fields FieldsOf(base::DataType type) {
  using base::DataType;
  switch (type) {
    case DataType::kInvalid:
      return {0, {}};
    case DataType::kF32:
      return {1, {{4, 4}}};
    case DataType::kF16:
    case DataType::kBF16:
      return {1, {kHalf}};
    case DataType::kQ8_0:
      return {2, {kHalf, {32, 4}}};
    case DataType::kQ4_0:
    case DataType::kIQ4_NL:
      return {2, {kHalf, {16, 4}}};
    case DataType::kQ4_1:
      return {3, {kHalf, kHalf, {16, 4}}};
    case DataType::kQ5_0:
      return {3, {kHalf, {4, 4, FifthBits::kSpread}, {16, 4}}};
    case DataType::kQ5_1:
      return {4, {kHalf, kHalf, {4, 4, FifthBits::kSpread}, {16, 4}}};
    case DataType::kQ2_K:
      return {4, {{16, 4}, {64, 4}, kHalf, kHalf}};
    case DataType::kQ3_K:
      return {4, {{32, 4}, {64, 4}, {12, 4}, kHalf}};
    case DataType::kQ4_K:
      return {4, {kHalf, kHalf, {12, 4}, {128, 4}}};
    case DataType::kQ5_K:
      return FieldsOfQ5K();
    case DataType::kQ6_K:
      return FieldsOfQ6K();
    case DataType::kIQ4_XS:
      return {4, {kHalf, kHalf, {4, 4}, {128, 4}}};
  }
  return {0, {}};
}

// Bit i of the file's word is number i's; here bit g of byte b is number 4 * g + b's, so that one
// shift brings a group's four bits into its four bytes.
uint32_t SpreadFifthBits(uint32_t bits) {
  uint32_t spread = 0;
  for (int i = 0; i < 32; ++i) spread |= ((bits >> i) & 1u) << (8 * (i % 4) + i / 4);
  return spread;
}

// Bits 2 * section and + 1 of each of 16 bytes, four words of 4 bytes, in one word: those of word i
// are bits 2 * i and + 1 of its bytes (Q5K in formats_256.h).
uint32_t GatherFifthBits(const std::byte* from, int section) {
  uint32_t gathered = 0;
  for (int i = 0; i < 4; ++i) {
    uint32_t bits;
    std::memcpy(&bits, from + 4 * i, sizeof(bits));
    gathered |= ((bits >> (2 * section)) & 0x03030303u) << (2 * i);
  }
  return gathered;
}

// The same field of `count` rows' blocks, a row's `stride` bytes after the other's, to its place in
// a panel block, where lane `lane` is the first of them. Writes memory forwards. `full` is `count`
// where the compiler may know it, else 0.
template <class Chunk, int full>
void PackField(const std::byte* from, int64_t stride, int count, int chunks, int lanes, int lane,
               std::byte* to) {
  to += lane * sizeof(Chunk);
  for (int c = 0; c < chunks; ++c, from += sizeof(Chunk), to += lanes * sizeof(Chunk)) {
    for (int r = 0; r < (full > 0 ? full : count); ++r) {
      Chunk chunk;
      std::memcpy(&chunk, from + r * stride, sizeof(chunk));
      std::memcpy(to + r * sizeof(chunk), &chunk, sizeof(chunk));
    }
  }
}

void PackFifthBits(const std::byte* from, int64_t stride, int count, int lane, std::byte* to) {
  for (int r = 0; r < count; ++r) {
    uint32_t bits;
    std::memcpy(&bits, from + r * stride, sizeof(bits));
    bits = SpreadFifthBits(bits);
    std::memcpy(to + (lane + r) * sizeof(bits), &bits, sizeof(bits));
  }
}

void PackSectionFifthBits(int section, const std::byte* from, int64_t stride, int count, int lanes,
                          int lane, std::byte* to) {
  for (int word = 0; word < 2; ++word, to += lanes * sizeof(uint32_t)) {
    for (int r = 0; r < count; ++r) {
      const uint32_t bits = GatherFifthBits(from + r * stride + 16 * word, section);
      std::memcpy(to + (lane + r) * sizeof(bits), &bits, sizeof(bits));
    }
  }
}

template <class Chunk>
void PackFieldOf(const std::byte* from, int64_t stride, int count, int chunks, int lanes, int lane,
                 std::byte* to) {
  switch (count) {
    case 8:
      return PackField<Chunk, 8>(from, stride, count, chunks, lanes, lane, to);
    case 16:
      return PackField<Chunk, 16>(from, stride, count, chunks, lanes, lane, to);
    default:
      return PackField<Chunk, 0>(from, stride, count, chunks, lanes, lane, to);
  }
}

// One block of `count` rows into lanes [lane, lane + count) of a panel block.
void PackBlock(const Fields& fields, const std::byte* block, int64_t stride, int count, int lanes,
               int lane, std::byte* to) {
  const std::byte* from = block;
  for (int f = 0; f < fields.count; ++f) {
    const Field& field = fields.list[f];
    if (field.at >= 0) from = block + field.at;
    if (field.fifth_bits == FifthBits::kSpread) {
      PackFifthBits(from, stride, count, lane, to);
    } else if (field.fifth_bits != FifthBits::kNone) {
      const int section =
          static_cast<int>(field.fifth_bits) - static_cast<int>(FifthBits::kSection0);
      PackSectionFifthBits(section, from, stride, count, lanes, lane, to);
    } else if (field.chunk == 2) {
      PackFieldOf<uint16_t>(from, stride, count, field.bytes / 2, lanes, lane, to);
    } else {
      PackFieldOf<uint32_t>(from, stride, count, field.bytes / 4, lanes, lane, to);
    }
    from += field.bytes;
    to += lanes * field.bytes;
  }
}

}  // namespace

int64_t PackedMatrix::Bytes(base::DataType type, int64_t rows, int64_t columns, int lanes) {
  const base::DataTypeInfo& info = base::GetDataTypeInfo(type);
  return (rows + lanes - 1) / lanes * lanes * (columns / info.block_elements * info.block_bytes);
}

absl::StatusOr<std::unique_ptr<PackedMatrix>> PackedMatrix::Create(base::DataType type,
                                                                   int64_t rows, int64_t columns,
                                                                   int lanes) {
  absl::StatusOr<PageMemory> memory = PageMemory::Allocate(Bytes(type, rows, columns, lanes));
  if (!memory.ok()) return memory.status();
  std::unique_ptr<PackedMatrix> matrix(new PackedMatrix(type, rows, columns, lanes));
  matrix->memory_ = *std::move(memory);
  return matrix;
}

std::unique_ptr<PackedMatrix> PackedMatrix::Adopt(base::DataType type, int64_t rows,
                                                  int64_t columns, int lanes, PackedBytes packed) {
  std::unique_ptr<PackedMatrix> matrix(new PackedMatrix(type, rows, columns, lanes));
  matrix->adopted_ = std::move(packed);
  return matrix;
}

PackedMatrix::PackedMatrix(base::DataType type, int64_t rows, int64_t columns, int lanes)
    : type_(type),
      rows_(rows),
      columns_(columns),
      lanes_(lanes),
      block_bytes_(base::GetDataTypeInfo(type).block_bytes),
      row_bytes_(columns / base::GetDataTypeInfo(type).block_elements * block_bytes_) {}

void PackedMatrix::Pack(int64_t first_row, std::span<const std::byte> rows) {
  const Fields fields = FieldsOf(type_);
  const int64_t end = first_row + static_cast<int64_t>(rows.size()) / row_bytes_;
  const std::byte* from = rows.data();
  for (int64_t row = first_row; row < end;) {
    const int64_t panel = row / lanes_;
    const int64_t next = std::min(end, (panel + 1) * lanes_);
    const int count = static_cast<int>(next - row);
    const int lane = static_cast<int>(row % lanes_);
    std::byte* to = memory_->data() + panel * lanes_ * row_bytes_;
    for (int64_t done = 0; done < row_bytes_; done += block_bytes_) {
      PackBlock(fields, from + done, row_bytes_, count, lanes_, lane, to + done * lanes_);
    }
    from += count * row_bytes_;
    row = next;
  }
}

}  // namespace renga::kernels::cpu

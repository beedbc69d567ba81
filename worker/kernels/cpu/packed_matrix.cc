#include "worker/kernels/cpu/packed_matrix.h"

#include <algorithm>
#include <cstring>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"

namespace renga::kernels::cpu {
namespace {

// How a field of a row's block is made of the file's.
enum class Coding : int8_t {
  kStored,
  kSpreadFifthBits,  // one of each number of a block of 32
  // Those that a section of Q5_K uses.
  kFifthBits0,
  kFifthBits1,
  kFifthBits2,
  kFifthBits3,
  kCodesOfQ3K,
  kCodesOfQ6K,
};

// A field of a row's block. Packed fields follow each other without gaps; where the file has them
// in another order, each says where it is there.
struct Field {
  int32_t bytes;
  int16_t chunk;  // bytes that stay together
  Coding coding = Coding::kStored;
  int16_t at = -1;  // in the file's block; -1: after the field before it
};

struct Fields {
  int count;
  Field list[12];
};

// Fields in the order in which kernels take them (Q5K and others in formats_256.h), so that memory
// is read forwards, line after line: a processor fetches ahead of such reading only. Here, each
// section's fifth bits before its nibbles.
constexpr Fields FieldsOfQ5K() {
  Fields fields = {3, {{2, 2}, {2, 2}, {12, 4}}};
  for (int section = 0; section < 4; ++section) {
    const auto bits = static_cast<Coding>(static_cast<int>(Coding::kFifthBits0) + section);
    fields.list[fields.count++] = {8, 4, bits, 16};
    fields.list[fields.count++] = {32, 4, Coding::kStored, static_cast<int16_t>(48 + 32 * section)};
  }
  return fields;
}

constexpr Field kHalf = {2, 2};

// So that bytes of a panel block are counted in an int.
constexpr int64_t kMostBlockBytes = int64_t{1} << 20;

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
      return {3, {kHalf, {4, 4, Coding::kSpreadFifthBits}, {16, 4}}};
    case DataType::kQ5_1:
      return {4, {kHalf, kHalf, {4, 4, Coding::kSpreadFifthBits}, {16, 4}}};
    case DataType::kQ2_K:
      return {4, {{16, 4}, {64, 4}, kHalf, kHalf}};
    case DataType::kQ3_K:
      return {3,
              {{12, 4, Coding::kStored, 96},
               {96, 4, Coding::kCodesOfQ3K, 0},
               {2, 2, Coding::kStored, 108}}};
    case DataType::kQ4_K:
      return {4, {kHalf, kHalf, {12, 4}, {128, 4}}};
    case DataType::kQ5_K:
      return FieldsOfQ5K();
    case DataType::kQ6_K:
      return {3,
              {{16, 4, Coding::kStored, 192},
               {192, 4, Coding::kCodesOfQ6K, 0},
               {2, 2, Coding::kStored, 208}}};
    case DataType::kIQ4_XS:
      return {4, {kHalf, kHalf, {4, 4}, {128, 4}}};
    case DataType::kR3:
      return {3, {kHalf, {4, 4}, {8, 4}}};
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

uint32_t LoadWord(const std::byte* from) {
  uint32_t word;
  std::memcpy(&word, from, sizeof(word));
  return word;
}

void StoreWord(uint32_t word, std::byte* to) { std::memcpy(to, &word, sizeof(word)); }

// Bits 2 * section and + 1 of each of 16 bytes, four words of 4 bytes, in one word: those of word i
// are bits 2 * i and + 1 of its bytes (Q5K in formats_256.h).
uint32_t GatherFifthBits(const std::byte* from, int section) {
  uint32_t gathered = 0;
  for (int i = 0; i < 4; ++i) {
    gathered |= ((LoadWord(from + 4 * i) >> (2 * section)) & 0x03030303u) << (2 * i);
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

// Words of 4 bytes: word w of a row is word_of(its block's field, w).
template <class WordOf>
void PackWords(const std::byte* from, int64_t stride, int count, int words, int lanes, int lane,
               std::byte* to, const WordOf& word_of) {
  to += lane * sizeof(uint32_t);
  for (int w = 0; w < words; ++w, to += lanes * sizeof(uint32_t)) {
    for (int r = 0; r < count; ++r) {
      StoreWord(word_of(from + r * stride, w), to + r * sizeof(uint32_t));
    }
  }
}

// Word w of Q3_K's codes (Q3K in formats_256.h): of each three, the third bits of two steps and the
// steps' codes.
uint32_t CodesOfQ3K(const std::byte* block, int w) {
  const int section = w / 6, first_step = w % 6 / 3 * 2;
  if (w % 3 > 0) return LoadWord(block + 32 + 16 * section + 4 * (first_step + w % 3 - 1));
  const std::byte* third = block + 16 * (section % 2) + 4 * first_step;
  const int shift = section / 2 * 4;
  return ((LoadWord(third) >> shift) & 0x0f0f0f0fu) | ((LoadWord(third + 4) >> shift) & 0x0f0f0f0fu)
                                                          << 4;
}

// Q6_K's codes (Q6K in formats_256.h). The file has, for each half of the block, numbers 32 * q + l
// in nibbles, q = 0 and 1 the low ones of 64 bytes, 2 and 3 the high ones, and behind all nibbles
// bits 2 * q of byte l.
void PackCodesOfQ6K(const std::byte* block, int64_t stride, int count, int lanes, int lane,
                    std::byte* to) {
  const int64_t word_bytes = lanes * static_cast<int64_t>(sizeof(uint32_t));
  to += lane * sizeof(uint32_t);
  for (int step = 0; step < 16; ++step, to += 3 * word_bytes) {
    const std::byte* from = block + 64 * (step / 8) + 4 * (step % 8);
    const std::byte* top_from = block + 128 + 4 * step;
    for (int r = 0; r < count; ++r, from += stride, top_from += stride) {
      const uint32_t even = LoadWord(from), odd = LoadWord(from + 32), top = LoadWord(top_from);
      const uint32_t nibbles = 0x0f0f0f0fu, high = 0x30303030u, highest = 0xc0c0c0c0u;
      const uint32_t codes[3] = {(even & nibbles) | ((top << 4) & high),
                                 (odd & nibbles) | ((top << 2) & high),
                                 ((even >> 4) & nibbles) | (top & high)};
      const uint32_t last = ((odd >> 4) & nibbles) | ((top >> 2) & high);
      StoreWord(codes[0] | ((last << 6) & highest), to + r * sizeof(uint32_t));
      StoreWord(codes[1] | ((last << 4) & highest), to + word_bytes + r * sizeof(uint32_t));
      StoreWord(codes[2] | ((last << 2) & highest), to + 2 * word_bytes + r * sizeof(uint32_t));
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

void PackStored(const Field& field, const std::byte* from, int64_t stride, int count, int lanes,
                int lane, std::byte* to) {
  if (field.chunk == 2) {
    PackFieldOf<uint16_t>(from, stride, count, field.bytes / 2, lanes, lane, to);
  } else {
    PackFieldOf<uint32_t>(from, stride, count, field.bytes / 4, lanes, lane, to);
  }
}

// `from` is the field in the first row's block, or where it is made of several, the block.
void PackCoded(const Field& field, const std::byte* from, int64_t stride, int count, int lanes,
               int lane, std::byte* to) {
  const auto words = [&](const auto& word_of) {
    PackWords(from, stride, count, field.bytes / 4, lanes, lane, to, word_of);
  };
  switch (field.coding) {
    case Coding::kStored:
      return PackStored(field, from, stride, count, lanes, lane, to);
    case Coding::kSpreadFifthBits:
      return words([](const std::byte* row, int) { return SpreadFifthBits(LoadWord(row)); });
    case Coding::kFifthBits0:
    case Coding::kFifthBits1:
    case Coding::kFifthBits2:
    case Coding::kFifthBits3: {
      const int section = static_cast<int>(field.coding) - static_cast<int>(Coding::kFifthBits0);
      return words(
          [=](const std::byte* row, int w) { return GatherFifthBits(row + 16 * w, section); });
    }
    case Coding::kCodesOfQ3K:
      return words(CodesOfQ3K);
    case Coding::kCodesOfQ6K:
      return PackCodesOfQ6K(from, stride, count, lanes, lane, to);
  }
}

// One block of `count` rows into lanes [lane, lane + count) of a panel block.
void PackBlock(const Fields& fields, const std::byte* block, int64_t stride, int count, int lanes,
               int lane, std::byte* to) {
  const std::byte* from = block;
  for (int f = 0; f < fields.count; ++f) {
    const Field& field = fields.list[f];
    if (field.at >= 0) from = block + field.at;
    PackCoded(field, from, stride, count, lanes, lane, to);
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
  Fields fields = FieldsOf(type_);
  int64_t block_bytes = block_bytes_;
  if (base::GetDataTypeInfo(type_).block_elements == 1 && row_bytes_ <= kMostBlockBytes) {
    // A row of plain numbers may as well be one block.
    block_bytes = row_bytes_;
    fields.list[0].bytes = static_cast<int32_t>(row_bytes_);
  }
  const int64_t end = first_row + static_cast<int64_t>(rows.size()) / row_bytes_;
  const std::byte* from = rows.data();
  for (int64_t row = first_row; row < end;) {
    const int64_t panel = row / lanes_;
    const int64_t next = std::min(end, (panel + 1) * lanes_);
    const int count = static_cast<int>(next - row);
    const int lane = static_cast<int>(row % lanes_);
    std::byte* to = memory_->data() + panel * lanes_ * row_bytes_;
    for (int64_t done = 0; done < row_bytes_; done += block_bytes) {
      PackBlock(fields, from + done, row_bytes_, count, lanes_, lane, to + done * lanes_);
    }
    from += count * row_bytes_;
    row = next;
  }
}

}  // namespace renga::kernels::cpu

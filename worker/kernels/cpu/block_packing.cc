#include "worker/kernels/cpu/block_packing.h"

#include <cstring>

#include "worker/kernels/cpu/unroll.h"

namespace renga::kernels::cpu {
namespace {

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

// Chunks are moved by squares: as many rows as a vector register has chunks, and as many chunks of
// each. These are the compilers' own vectors, of a size that every processor with vectors has.
constexpr int kVectorBytes = 16;

template <class Chunk>
struct VectorOf {
  typedef Chunk Type __attribute__((vector_size(kVectorBytes)));
};

// The chunks of a square's side.
template <class Chunk>
constexpr int kSide = kVectorBytes / static_cast<int>(sizeof(Chunk));

// The lower halves of two vectors, a chunk of the one before each of the other; then the upper.
template <class Vector>
Vector ZipLow(Vector a, Vector b) {
  if constexpr (sizeof(a[0]) == sizeof(uint32_t)) {
    return __builtin_shufflevector(a, b, 0, 4, 1, 5);
  } else {
    return __builtin_shufflevector(a, b, 0, 8, 1, 9, 2, 10, 3, 11);
  }
}

template <class Vector>
Vector ZipHigh(Vector a, Vector b) {
  if constexpr (sizeof(a[0]) == sizeof(uint32_t)) {
    return __builtin_shufflevector(a, b, 2, 6, 3, 7);
  } else {
    return __builtin_shufflevector(a, b, 4, 12, 5, 13, 6, 14, 7, 15);
  }
}

// Each round moves the highest bit of a chunk's row number to the lowest place of its column
// number, and the other way round.
template <class Vector, int side>
void Transpose(Vector (&square)[side]) {
  for (int round = 1; round < side; round *= 2) {
    Vector zipped[side];
    for (int i = 0; i < side / 2; ++i) {
      zipped[2 * i] = ZipLow(square[i], square[i + side / 2]);
      zipped[2 * i + 1] = ZipHigh(square[i], square[i + side / 2]);
    }
    for (int i = 0; i < side; ++i) square[i] = zipped[i];
  }
}

// What is done with a row's chunks, done with a square's rows at once...
template <class Chunk>
struct SquareOfRows {
  using Chunks = typename VectorOf<Chunk>::Type;
  static constexpr int kRows = kSide<Chunk>;

  // Loads kSide neighbouring chunks of each row, `stride` bytes after each other.
  static void Load(const std::byte* from, int64_t stride, Chunks (&chunks)[kSide<Chunk>]) {
    for (int r = 0; r < kRows; ++r) std::memcpy(&chunks[r], from + r * stride, sizeof(Chunks));
    Transpose(chunks);
  }
  // One chunk of each row.
  static void LoadOne(const std::byte* from, int64_t stride, Chunks& chunks) {
    for (int r = 0; r < kRows; ++r) {
      Chunk chunk;
      std::memcpy(&chunk, from + r * stride, sizeof(chunk));
      chunks[r] = chunk;
    }
  }
};

// ... and with one that is left over.
template <class Chunk>
struct SingleRow {
  using Chunks = Chunk;
  static constexpr int kRows = 1;

  static void Load(const std::byte* from, int64_t /*stride*/, Chunks (&chunks)[kSide<Chunk>]) {
    std::memcpy(chunks, from, sizeof(chunks));
  }
  static void LoadOne(const std::byte* from, int64_t /*stride*/, Chunks& chunks) {
    std::memcpy(&chunks, from, sizeof(chunks));
  }
};

// Calls pack(rows, first row) for squares of `count` rows, then for single rows.
template <class Chunk, class Pack>
[[gnu::always_inline]] inline void ForRows(int count, Pack pack) {
  int row = 0;
  for (; row + kSide<Chunk> <= count; row += kSide<Chunk>) pack(SquareOfRows<Chunk>{}, row);
  for (; row < count; ++row) pack(SingleRow<Chunk>{}, row);
}

template <class Chunks>
void Store(const Chunks& chunks, std::byte* to) {
  std::memcpy(to, &chunks, sizeof(chunks));
}

// The same field of some neighbouring blocks of `count` rows.
struct RowFields {
  const std::byte* from;  // of the first row's first block
  int64_t stride;         // from a row to the next
  int count;
  int blocks;
  int block_bytes;
};

// Where they go in panel blocks.
struct Place {
  std::byte* to;  // the first chunk of the first row's first block
  int lanes;

  // From a word of a row to the next.
  int64_t line() const { return lanes * int64_t{sizeof(uint32_t)}; }
};

// Calls pack(rows, where their field begins, where its first chunk goes) for each block, squares of
// rows before single ones.
template <class Chunk, class Pack>
[[gnu::always_inline]] inline void ForFields(RowFields rows, Place place, Pack pack) {
  for (int b = 0; b < rows.blocks; ++b) {
    const int64_t at = int64_t{b} * rows.block_bytes;
    ForRows<Chunk>(rows.count, [=](auto some, int row) RENGA_INLINE_LAMBDA {
      pack(some, rows.from + at + row * rows.stride,
           place.to + at * place.lanes + row * static_cast<int>(sizeof(Chunk)));
    });
  }
}

// `chunks` of each row, one by one: less than a square's side. `full` is the count of rows where
// the compiler may know it, else 0.
template <class Chunk, int full>
void PackFewOf(RowFields rows, int chunks, Place place) {
  const int64_t line = place.lanes * int64_t{sizeof(Chunk)};
  for (int b = 0; b < rows.blocks; ++b) {
    const std::byte* from = rows.from + int64_t{b} * rows.block_bytes;
    std::byte* to = place.to + int64_t{b} * rows.block_bytes * place.lanes;
    for (int c = 0; c < chunks; ++c, from += sizeof(Chunk), to += line) {
      for (int r = 0; r < (full > 0 ? full : rows.count); ++r) {
        Chunk chunk;
        std::memcpy(&chunk, from + r * rows.stride, sizeof(chunk));
        Store(chunk, to + r * sizeof(chunk));
      }
    }
  }
}

template <class Chunk>
void PackFewChunks(RowFields rows, int chunks, Place place) {
  switch (rows.count) {
    case 4:
      return PackFewOf<Chunk, 4>(rows, chunks, place);
    case 8:
      return PackFewOf<Chunk, 8>(rows, chunks, place);
    case 16:
      return PackFewOf<Chunk, 16>(rows, chunks, place);
    default:
      return PackFewOf<Chunk, 0>(rows, chunks, place);
  }
}

// `squares` neighbouring squares of each group of rows.
template <class Chunk>
void PackSquares(RowFields rows, int squares, Place place) {
  const int64_t line = place.lanes * int64_t{sizeof(Chunk)};
  ForFields<Chunk>(
      rows, place, [=](auto some, const std::byte* from, std::byte* to) RENGA_INLINE_LAMBDA {
        for (int s = 0; s < squares; ++s, from += kVectorBytes, to += kSide<Chunk> * line) {
          typename decltype(some)::Chunks chunks[kSide<Chunk>];
          some.Load(from, rows.stride, chunks);
          for (int c = 0; c < kSide<Chunk>; ++c) Store(chunks[c], to + c * line);
        }
      });
}

template <class Chunk>
void PackStored(RowFields rows, int bytes, Place place) {
  const auto advance = [&](int by) {
    rows.from += by;
    place.to += int64_t{by} * place.lanes;
    bytes -= by;
  };
  // Of each row a cache line at a time: rows that are a power of two apart push each other's lines
  // out of the nearest cache.
  constexpr int kLineBytes = 64;
  for (; bytes >= kLineBytes; advance(kLineBytes)) {
    PackSquares<Chunk>(rows, kLineBytes / kVectorBytes, place);
  }
  const int squares = bytes / kVectorBytes;
  if (squares > 0) PackSquares<Chunk>(rows, squares, place);
  advance(squares * kVectorBytes);
  if (bytes > 0) PackFewChunks<Chunk>(rows, bytes / static_cast<int>(sizeof(Chunk)), place);
}

// Of each word the bits at even places to its lower half, the others to the upper, twice. So bit i
// of the file's word, number i's, becomes bit g of byte b where i is 4 * g + b: one shift brings a
// group's four bits into its four bytes.
template <class Words>
Words SpreadFifthBits(Words bits) {
  const auto swap = [&bits](uint32_t lower, int distance) {
    const Words other = (bits ^ (bits >> distance)) & lower;
    bits ^= other ^ (other << distance);
  };
  for (int round = 0; round < 2; ++round) {
    swap(0x22222222u, 1);
    swap(0x0c0c0c0cu, 2);
    swap(0x00f000f0u, 4);
    swap(0x0000ff00u, 8);
  }
  return bits;
}

void PackSpreadFifthBits(RowFields rows, Place place) {
  ForFields<uint32_t>(rows, place,
                      [=](auto some, const std::byte* from, std::byte* to) RENGA_INLINE_LAMBDA {
                        typename decltype(some)::Chunks bits;
                        some.LoadOne(from, rows.stride, bits);
                        Store(SpreadFifthBits(bits), to);
                      });
}

// Bits 2 * section and + 1 of each of 32 bytes, in two words: those of word i of a word's 16 bytes
// are bits 2 * i and + 1 of its bytes (Q5K in formats_256.h).
void PackFifthBits(RowFields rows, int section, Place place) {
  ForFields<uint32_t>(rows, place,
                      [=](auto some, const std::byte* from, std::byte* to) RENGA_INLINE_LAMBDA {
                        for (int w = 0; w < 2; ++w) {
                          typename decltype(some)::Chunks words[4];
                          some.Load(from + w * kVectorBytes, rows.stride, words);
                          auto gathered = (words[0] >> (2 * section)) & 0x03030303u;
                          for (int i = 1; i < 4; ++i) {
                            gathered |= ((words[i] >> (2 * section)) & 0x03030303u) << (2 * i);
                          }
                          Store(gathered, to + w * place.line());
                        }
                      });
}

// Q3_K's codes (Q3K in formats_256.h): of each three words, the third bits of two steps and the
// steps' codes.
void PackCodesOfQ3K(RowFields rows, Place place) {
  ForFields<uint32_t>(
      rows, place, [=](auto some, const std::byte* block, std::byte* to) RENGA_INLINE_LAMBDA {
        for (int section = 0; section < 4; ++section) {
          typename decltype(some)::Chunks codes[4], third[4];
          some.Load(block + 32 + 16 * section, rows.stride, codes);
          some.Load(block + 16 * (section % 2), rows.stride, third);
          const int shift = section / 2 * 4;
          const auto store = [&](int word, const auto& words) {
            Store(words, to + (6 * section + word) * place.line());
          };
          for (int step = 0; step < 4; step += 2) {
            store(step / 2 * 3, ((third[step] >> shift) & 0x0f0f0f0fu) |
                                    (((third[step + 1] >> shift) & 0x0f0f0f0fu) << 4));
            store(step / 2 * 3 + 1, codes[step]);
            store(step / 2 * 3 + 2, codes[step + 1]);
          }
        }
      });
}

// Q6_K's codes (Q6K in formats_256.h). The file has, for each half of the block, numbers 32 * q + l
// in nibbles, q = 0 and 1 the low ones of 64 bytes, 2 and 3 the high ones, and behind all nibbles
// bits 2 * q of byte l.
void PackCodesOfQ6K(RowFields rows, Place place) {
  ForFields<uint32_t>(
      rows, place, [=](auto some, const std::byte* block, std::byte* to) RENGA_INLINE_LAMBDA {
        for (int step = 0; step < 16; step += 4) {
          typename decltype(some)::Chunks evens[4], odds[4], tops[4];
          some.Load(block + 64 * (step / 8) + 4 * (step % 8), rows.stride, evens);
          some.Load(block + 64 * (step / 8) + 4 * (step % 8) + 32, rows.stride, odds);
          some.Load(block + 128 + 4 * step, rows.stride, tops);
          for (int i = 0; i < 4; ++i) {
            const auto even = evens[i], odd = odds[i], top = tops[i];
            const uint32_t nibbles = 0x0f0f0f0fu, high = 0x30303030u, highest = 0xc0c0c0c0u;
            const auto last = ((odd >> 4) & nibbles) | ((top >> 2) & high);
            const auto store = [&](int word, const auto& words) {
              Store(words, to + (3 * (step + i) + word) * place.line());
            };
            store(0, (even & nibbles) | ((top << 4) & high) | ((last << 6) & highest));
            store(1, (odd & nibbles) | ((top << 2) & high) | ((last << 4) & highest));
            store(2, ((even >> 4) & nibbles) | (top & high) | ((last << 2) & highest));
          }
        }
      });
}

// Of fields that are made of several, `rows` are the blocks.
void PackField(const Field& field, RowFields rows, Place place) {
  switch (field.coding) {
    case Coding::kStored:
      return field.chunk == sizeof(uint16_t) ? PackStored<uint16_t>(rows, field.bytes, place)
                                             : PackStored<uint32_t>(rows, field.bytes, place);
    case Coding::kSpreadFifthBits:
      return PackSpreadFifthBits(rows, place);
    case Coding::kFifthBits0:
    case Coding::kFifthBits1:
    case Coding::kFifthBits2:
    case Coding::kFifthBits3:
      return PackFifthBits(
          rows, static_cast<int>(field.coding) - static_cast<int>(Coding::kFifthBits0), place);
    case Coding::kCodesOfQ3K:
      return PackCodesOfQ3K(rows, place);
    case Coding::kCodesOfQ6K:
      return PackCodesOfQ6K(rows, place);
  }
}

}  // namespace

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

void PackBlocks(const Fields& fields, const BlocksOfRows& blocks, int lanes, int lane,
                std::byte* to) {
  const std::byte* from = blocks.from;
  for (int f = 0; f < fields.count; ++f) {
    const Field& field = fields.list[f];
    if (field.at >= 0) from = blocks.from + field.at;
    PackField(field,
              {.from = from,
               .stride = blocks.stride,
               .count = blocks.rows,
               .blocks = blocks.blocks,
               .block_bytes = blocks.block_bytes},
              {.to = to + lane * field.chunk, .lanes = lanes});
    from += field.bytes;
    to += int64_t{lanes} * field.bytes;
  }
}

}  // namespace renga::kernels::cpu

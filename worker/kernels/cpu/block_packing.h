// How a block of a GGUF file goes into a panel (packed_matrix.h): which fields it has, in which
// order the packed block has them, and how their bytes get there.
#ifndef RENGA_WORKER_KERNELS_CPU_BLOCK_PACKING_H_
#define RENGA_WORKER_KERNELS_CPU_BLOCK_PACKING_H_

#include <cstddef>
#include <cstdint>

#include "base/data_type.h"

namespace renga::kernels::cpu {

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

// A type's fields in the packed order; none for kInvalid. See docs/FORMATS.md for the file's.
Fields FieldsOf(base::DataType type);

// The same neighbouring blocks of some rows.
struct BlocksOfRows {
  const std::byte* from;
  int64_t stride;  // from a row to the next
  int rows;
  int blocks;
  int block_bytes;
};

// Puts them into lanes [lane, lane + rows) of as many panel blocks of `lanes`, from `to` on. A
// block has as many bytes as the fields together. All sizes are the caller's to check.
void PackBlocks(const Fields& fields, const BlocksOfRows& blocks, int lanes, int lane,
                std::byte* to);

}  // namespace renga::kernels::cpu

#endif  // RENGA_WORKER_KERNELS_CPU_BLOCK_PACKING_H_

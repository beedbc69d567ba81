#include "worker/kernels/cpu/packed_matrix.h"

#include <algorithm>
#include <cstring>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "worker/kernels/cpu/block_packing.h"

namespace renga::kernels::cpu {
namespace {

// So that bytes of a panel block are counted in an int.
constexpr int64_t kMostBlockBytes = int64_t{1} << 20;

// What is written of a panel before its rows' next blocks are looked at, where that is more than a
// block: fields of small blocks are packed one after the other for several blocks at once. With
// more of them memory is not written forwards any longer, which costs more than it gains.
constexpr int64_t kPanelBytesAtOnce = 768;

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
  const int64_t at_once =
      std::max<int64_t>(1, kPanelBytesAtOnce / lanes_ / block_bytes) * block_bytes;
  const int64_t end = first_row + static_cast<int64_t>(rows.size()) / row_bytes_;
  const std::byte* from = rows.data();
  for (int64_t row = first_row; row < end;) {
    const int64_t panel = row / lanes_;
    const int64_t next = std::min(end, (panel + 1) * lanes_);
    const int count = static_cast<int>(next - row);
    const int lane = static_cast<int>(row % lanes_);
    std::byte* to = memory_->data() + panel * lanes_ * row_bytes_;
    for (int64_t done = 0; done < row_bytes_; done += at_once) {
      PackBlocks(fields,
                 {.from = from + done,
                  .stride = row_bytes_,
                  .rows = count,
                  .blocks = static_cast<int>(std::min(at_once, row_bytes_ - done) / block_bytes),
                  .block_bytes = static_cast<int>(block_bytes)},
                 lanes_, lane, to + done * lanes_);
    }
    from += count * row_bytes_;
    row = next;
  }
}

}  // namespace renga::kernels::cpu

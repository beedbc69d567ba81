// A weight matrix as the CPU kernels read it.
//
// Rows are taken `lanes` at a time into panels; the last panel is filled up with zero rows. A panel
// is its blocks in order; a panel block holds the same block of each of its rows, field by field:
// the field at byte o of a row's block begins at byte lanes * o of the panel block, and is cut into
// chunks (2 bytes for scales, 4 for codes; one number for plain formats) that alternate between
// rows. The codes of Q3_K, Q5_K and Q6_K are put into another order first, that of their use
// (formats_256.h). So a vector register loaded from a panel has one lane per row. Nothing is added,
// so a matrix takes the bytes of its file, the last panel's filling aside.
#ifndef RENGA_WORKER_KERNELS_CPU_PACKED_MATRIX_H_
#define RENGA_WORKER_KERNELS_CPU_PACKED_MATRIX_H_

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>

#include "absl/status/statusor.h"
#include "base/data_type.h"
#include "worker/kernels/backend.h"
#include "worker/kernels/page_memory.h"

namespace renga::kernels::cpu {

class PackedMatrix : public WeightMatrix {
 public:
  // What a matrix takes in memory; the arguments fit each other (CheckMatrixShape).
  static int64_t Bytes(base::DataType type, int64_t rows, int64_t columns, int lanes);
  static absl::StatusOr<std::unique_ptr<PackedMatrix>> Create(base::DataType type, int64_t rows,
                                                              int64_t columns, int lanes);
  // Of bytes that data() gave once; there are Bytes() of them. It cannot be packed into.
  static std::unique_ptr<PackedMatrix> Adopt(base::DataType type, int64_t rows, int64_t columns,
                                             int lanes, PackedBytes packed);

  base::DataType type() const override { return type_; }
  int64_t rows() const override { return rows_; }
  int64_t columns() const override { return columns_; }
  int64_t panels() const { return (rows_ + lanes_ - 1) / lanes_; }
  const std::byte* data() const {
    return memory_.has_value() ? memory_->data() : adopted_.bytes.data();
  }
  // Whether Pack may be called.
  bool loadable() const { return memory_.has_value(); }

  // Packs whole rows in the file's format, rows `first_row` and on. Different rows may be packed
  // from different threads.
  void Pack(int64_t first_row, std::span<const std::byte> rows);

 private:
  PackedMatrix(base::DataType type, int64_t rows, int64_t columns, int lanes);

  const base::DataType type_;
  const int64_t rows_;
  const int64_t columns_;
  const int lanes_;
  const int64_t block_bytes_;
  const int64_t row_bytes_;
  // One of the two.
  std::optional<PageMemory> memory_;
  PackedBytes adopted_;
};

}  // namespace renga::kernels::cpu

#endif  // RENGA_WORKER_KERNELS_CPU_PACKED_MATRIX_H_

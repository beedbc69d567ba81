// A screen on disk, with the second level and the matrix's own rows beside it: one file has all
// that a lazily read head needs. Built once for a model, kept beside the shards, copied to whoever
// holds rows of the head.
//
//   header     magic, version, sizes, the model's id, hash of header and basis
//   basis      ScreenBasis
//   hashes     of the blocks, 64 blocks each
//   blocks     the first level, 32 rows each
//   fine       for each row: second level, hash
//   rows       for each row: its bytes as in the model file, hash
//
// Hashes are the lower 64 bits of XXH3-128. Everything is checked when it is read, so a damaged
// file is noticed and never changes a token.
#ifndef RENGA_WORKER_ENGINE_SCREEN_FILE_H_
#define RENGA_WORKER_ENGINE_SCREEN_FILE_H_

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "base/data_type.h"
#include "base/file.h"
#include "worker/engine/head_screen.h"
#include "worker/engine/screen_builder.h"

namespace renga::engine {

// Where the screen of a model lies under a cache folder.
std::string ScreenPath(absl::string_view cache_directory, absl::string_view model_id);

// Fills `out` with whole rows from `first` on, as the model file stores them.
using StoredRowReader = std::function<absl::Status(int64_t first, std::span<std::byte> out)>;

struct ScreenedMatrix {
  std::string model_id;  // at most 64 bytes
  base::DataType type = base::DataType::kInvalid;
  StoredRowReader read;
};

// Replaces `path` in one step. FileError's codes, errors of matrix.read, kInvalidArgument.
absl::Status WriteScreen(const std::string& path, const HeadScreen& screen,
                         const ScreenedMatrix& matrix);

// Safe from several threads.
class ScreenFile {
 public:
  // Reads and checks header and basis. kDataLoss when it is no screen or is damaged.
  static absl::StatusOr<std::unique_ptr<ScreenFile>> Open(const std::string& path);

  const ScreenBasis& basis() const { return basis_; }
  const std::string& model_id() const { return model_id_; }
  base::DataType type() const { return type_; }
  int64_t rows() const { return rows_; }
  int64_t row_bytes() const { return row_bytes_; }
  int64_t block_count() const { return (rows_ + kScreenBlockRows - 1) / kScreenBlockRows; }

  // Blocks from `first` on, one after the other, as many as fill `out`.
  absl::Status ReadBlocks(int64_t first, std::span<std::byte> out) const;
  // Second levels and rows, one after the other in `out`, basis().fine_bytes() or row_bytes() each;
  // `rows` ascend. Neighbours are read together. How many bytes were read.
  absl::StatusOr<int64_t> ReadFine(std::span<const int32_t> rows, std::span<std::byte> out) const;
  absl::StatusOr<int64_t> ReadRows(std::span<const int32_t> rows, std::span<std::byte> out) const;

 private:
  ScreenFile() = default;
  absl::Status ReadHeader();
  // Records of `each` bytes and a hash, the first of them at `at`.
  absl::StatusOr<int64_t> ReadRecords(int64_t at, int64_t each, std::span<const int32_t> rows,
                                      std::span<std::byte> out) const;

  std::string path_;
  std::unique_ptr<base::RandomAccessFile> file_;
  ScreenBasis basis_;
  std::string model_id_;
  base::DataType type_ = base::DataType::kInvalid;
  int64_t rows_ = 0;
  int64_t row_bytes_ = 0;
  std::vector<uint64_t> segment_hashes_;
  int64_t blocks_at_ = 0;
  int64_t fine_at_ = 0;
  int64_t rows_at_ = 0;
};

}  // namespace renga::engine

#endif  // RENGA_WORKER_ENGINE_SCREEN_FILE_H_

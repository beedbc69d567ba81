// Dividing the rows of the output matrix into contiguous blocks.
#ifndef RENGA_PARTITION_HEAD_SPLIT_H_
#define RENGA_PARTITION_HEAD_SPLIT_H_

#include <cstdint>
#include <optional>
#include <vector>

namespace renga::partition {

// A worker that may hold a block, which takes it fixed_ms + rows * ms_per_row.
struct HeadHolder {
  double ms_per_row = 0;     // above 0
  double fixed_ms = 0;       // the way there and back, where it is not on the last stage
  int64_t row_capacity = 0;  // the most rows it has memory for
};

// Rows for each holder, n_rows in all, so that the slowest block takes the least time; exact.
// Holders that only make it slower get none. nullopt when they have no room for all rows.
std::optional<std::vector<int64_t>> SplitRows(int64_t n_rows,
                                              const std::vector<HeadHolder>& holders);

// The same, but no holder gets none: nullopt also when there are more of them than rows.
std::optional<std::vector<int64_t>> SplitRowsOverAll(int64_t n_rows,
                                                     const std::vector<HeadHolder>& holders);

}  // namespace renga::partition

#endif  // RENGA_PARTITION_HEAD_SPLIT_H_

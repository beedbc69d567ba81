// Dividing the rows of the output matrix into contiguous blocks.
#ifndef RENGA_PARTITION_HEAD_SPLIT_H_
#define RENGA_PARTITION_HEAD_SPLIT_H_

#include <cstdint>
#include <optional>
#include <vector>

#include "model/shard_spec.h"

namespace renga::partition {

// A worker that is to hold a block.
struct HeadHolder {
  double bytes_per_second = 0;
  int64_t row_capacity = 0;  // the most rows it has memory for
};

// Contiguous blocks [0, n_rows), one per holder in their order, none empty: in proportion to speed,
// so that all blocks take equally long, as far as capacities allow. nullopt when the holders have
// no room for all rows, or there are more holders than rows.
std::optional<std::vector<model::Range>> SplitRows(int64_t n_rows,
                                                   const std::vector<HeadHolder>& holders);

}  // namespace renga::partition

#endif  // RENGA_PARTITION_HEAD_SPLIT_H_

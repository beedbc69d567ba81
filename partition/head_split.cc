#include "partition/head_split.h"

#include <algorithm>
#include <cmath>

namespace renga::partition {
namespace {

// Rows per holder if each could have a share in proportion to its speed; those whose capacity is
// smaller get their capacity, and the others share what that leaves.
std::vector<double> ProportionalShares(int64_t n_rows, const std::vector<HeadHolder>& holders) {
  std::vector<double> shares(holders.size(), -1);  // -1: not settled yet
  for (bool settled_one = true; settled_one;) {
    settled_one = false;
    double rows_left = static_cast<double>(n_rows);
    double speed_left = 0;
    for (size_t i = 0; i < holders.size(); ++i) {
      if (shares[i] >= 0) {
        rows_left -= shares[i];
      } else {
        speed_left += holders[i].bytes_per_second;
      }
    }
    for (size_t i = 0; i < holders.size() && !settled_one; ++i) {
      const double capacity = static_cast<double>(holders[i].row_capacity);
      if (shares[i] < 0 && rows_left * holders[i].bytes_per_second / speed_left > capacity) {
        shares[i] = capacity;
        settled_one = true;
      }
    }
    if (settled_one) continue;
    for (size_t i = 0; i < holders.size(); ++i) {
      if (shares[i] < 0) shares[i] = rows_left * holders[i].bytes_per_second / speed_left;
    }
  }
  return shares;
}

}  // namespace

std::optional<std::vector<model::Range>> SplitRows(int64_t n_rows,
                                                   const std::vector<HeadHolder>& holders) {
  const int64_t count = static_cast<int64_t>(holders.size());
  if (count == 0 || count > n_rows) return std::nullopt;
  int64_t room = 0;
  for (const HeadHolder& holder : holders) {
    if (holder.row_capacity < 1) return std::nullopt;
    room += std::min(holder.row_capacity, n_rows);
  }
  if (room < n_rows) return std::nullopt;

  std::vector<int64_t> rows(holders.size());
  const std::vector<double> shares = ProportionalShares(n_rows, holders);
  int64_t left = n_rows;
  for (size_t i = 0; i < holders.size(); ++i) {
    const int64_t share = static_cast<int64_t>(std::floor(std::max(shares[i], 1.0)));
    rows[i] = std::min(share, holders[i].row_capacity);
    left -= rows[i];
  }
  // Rounding leaves a few rows over, or, where tiny shares were raised to one, a few too many.
  for (size_t i = 0; left > 0; i = (i + 1) % rows.size()) {
    if (rows[i] >= holders[i].row_capacity) continue;
    ++rows[i];
    --left;
  }
  while (left < 0) {
    --*std::max_element(rows.begin(), rows.end());
    ++left;
  }

  std::vector<model::Range> blocks;
  int64_t begin = 0;
  for (const int64_t size : rows) {
    blocks.push_back({begin, begin + size});
    begin += size;
  }
  return blocks;
}

}  // namespace renga::partition

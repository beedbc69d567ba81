#include "partition/head_split.h"

#include <algorithm>
#include <cmath>

namespace renga::partition {
namespace {

// Rows that a holder computes within `ms`.
int64_t RowsWithin(const HeadHolder& holder, double ms, int64_t least) {
  // Rounding must not cost the row that `ms` was computed for.
  const double rows = std::floor((ms - holder.fixed_ms) / holder.ms_per_row * (1 + 1e-12) + 1e-9);
  if (!(rows > static_cast<double>(least))) return std::min(least, holder.row_capacity);
  if (rows >= static_cast<double>(holder.row_capacity)) return holder.row_capacity;
  return static_cast<int64_t>(rows);
}

// Gives every holder at least `least` rows.
std::optional<std::vector<int64_t>> Split(int64_t n_rows, const std::vector<HeadHolder>& holders,
                                          int64_t least) {
  double enough_ms = 0;
  int64_t room = 0;
  for (const HeadHolder& holder : holders) {
    if (holder.row_capacity < least) return std::nullopt;
    const int64_t rows = std::min(holder.row_capacity, n_rows);
    room += rows;
    enough_ms =
        std::max(enough_ms, holder.fixed_ms + static_cast<double>(rows) * holder.ms_per_row);
  }
  const auto count = static_cast<int64_t>(holders.size());
  if (room < n_rows || (least > 0 && count > n_rows / least)) return std::nullopt;

  const auto rows_within = [&](double ms) {
    int64_t rows = 0;
    for (const HeadHolder& holder : holders) rows += RowsWithin(holder, ms, least);
    return rows;
  };
  double low = 0;
  double high = enough_ms;
  // Halved until no double lies between.
  for (int i = 0; i < 100 && rows_within(low) < n_rows; ++i) {
    const double middle = low + (high - low) / 2;
    (rows_within(middle) >= n_rows ? high : low) = middle;
  }
  std::vector<int64_t> rows;
  int64_t too_many = -n_rows;
  for (const HeadHolder& holder : holders) {
    rows.push_back(RowsWithin(holder, high, least));
    too_many += rows.back();
  }
  for (size_t i = rows.size(); i > 0 && too_many > 0; --i) {
    const int64_t fewer = std::min(too_many, rows[i - 1] - least);
    rows[i - 1] -= fewer;
    too_many -= fewer;
  }
  return rows;
}

}  // namespace

std::optional<std::vector<int64_t>> SplitRows(int64_t n_rows,
                                              const std::vector<HeadHolder>& holders) {
  return Split(n_rows, holders, 0);
}

std::optional<std::vector<int64_t>> SplitRowsOverAll(int64_t n_rows,
                                                     const std::vector<HeadHolder>& holders) {
  return Split(n_rows, holders, 1);
}

}  // namespace renga::partition

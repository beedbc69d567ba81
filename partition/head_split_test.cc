// Head blocks against trying every division.
#include "partition/head_split.h"

#include <algorithm>
#include <functional>
#include <limits>
#include <numeric>
#include <random>

#include "base/testing/status_matchers.h"

namespace renga::partition {
namespace {

using Rows = std::vector<int64_t>;

TEST(SplitRowsTest, FollowsSpeedWhereThereIsRoom) {
  EXPECT_EQ(SplitRows(400, {{3.0, 0, 1000}, {1.0, 0, 1000}}), (Rows{100, 300}));
  // The faster one has room for 250 only; the other takes the rest.
  EXPECT_EQ(SplitRows(400, {{3.0, 0, 1000}, {1.0, 0, 250}}), (Rows{150, 250}));
}

TEST(SplitRowsTest, LeavesOutWhoOnlyMakesItSlower) {
  EXPECT_EQ(SplitRows(10, {{1.0, 0, 100}, {1.0, 50, 100}}), (Rows{10, 0}));
  EXPECT_EQ(SplitRowsOverAll(10, {{1.0, 0, 100}, {1.0, 50, 100}}), (Rows{9, 1}));
}

TEST(SplitRowsTest, NobodyGetsNothing) {
  EXPECT_EQ(SplitRowsOverAll(3, {{1e-12, 0, 9}, {1.0, 0, 9}, {1.0, 0, 9}}), (Rows{1, 1, 1}));
}

TEST(SplitRowsTest, RefusesWhatHasNoRoom) {
  EXPECT_EQ(SplitRows(10, {}), std::nullopt);
  EXPECT_EQ(SplitRows(10, {{1.0, 0, 4}, {1.0, 0, 5}}), std::nullopt);
  EXPECT_EQ(SplitRowsOverAll(10, {{1.0, 0, 40}, {1.0, 0, 0}}), std::nullopt);
  EXPECT_EQ(SplitRowsOverAll(1, {{1.0, 0, 40}, {1.0, 0, 40}}), std::nullopt);
}

double SlowestMs(const std::vector<HeadHolder>& holders, const Rows& rows) {
  double slowest = 0;
  for (size_t i = 0; i < rows.size(); ++i) {
    if (rows[i] == 0) continue;
    slowest = std::max(slowest,
                       holders[i].fixed_ms + static_cast<double>(rows[i]) * holders[i].ms_per_row);
  }
  return slowest;
}

// The least time over all divisions; infinity when there is none.
double BestByTrying(int64_t n_rows, const std::vector<HeadHolder>& holders, int64_t least) {
  double best = std::numeric_limits<double>::infinity();
  Rows rows;
  const std::function<void(int64_t)> divide = [&](int64_t left) {
    if (rows.size() == holders.size()) {
      if (left == 0) best = std::min(best, SlowestMs(holders, rows));
      return;
    }
    const int64_t most = std::min(left, holders[rows.size()].row_capacity);
    for (int64_t count = least; count <= most; ++count) {
      rows.push_back(count);
      divide(left - count);
      rows.pop_back();
    }
  };
  divide(n_rows);
  return best;
}

TEST(SplitRowsTest, IsAsGoodAsTheBestOfAllDivisions) {
  std::mt19937 random(7);
  for (int round = 0; round < 600; ++round) {
    SCOPED_TRACE(round);
    const int64_t rows = 1 + random() % 14;
    const int64_t least = random() % 2;
    std::vector<HeadHolder> holders(1 + random() % 4);
    for (HeadHolder& holder : holders) {
      holder.ms_per_row = 0.25 * (1 + random() % 12);
      holder.fixed_ms = random() % 3 == 0 ? 0 : 0.5 * (random() % 10);
      holder.row_capacity = random() % 3 == 0 ? random() % 5 : random() % 20;
    }
    const auto split = least == 0 ? SplitRows(rows, holders) : SplitRowsOverAll(rows, holders);
    const double best = BestByTrying(rows, holders, least);
    ASSERT_EQ(split.has_value(), best < std::numeric_limits<double>::infinity());
    if (!split) continue;
    ASSERT_EQ(std::accumulate(split->begin(), split->end(), int64_t{0}), rows);
    for (size_t i = 0; i < holders.size(); ++i) {
      ASSERT_GE((*split)[i], least);
      ASSERT_LE((*split)[i], holders[i].row_capacity);
    }
    ASSERT_NEAR(SlowestMs(holders, *split), best, 1e-9);
  }
}

}  // namespace
}  // namespace renga::partition

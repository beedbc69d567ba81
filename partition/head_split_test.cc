#include "partition/head_split.h"

#include <cmath>
#include <random>

#include "base/testing/status_matchers.h"

namespace renga::partition {
namespace {

using model::Range;

TEST(SplitRowsTest, FollowsSpeedWhereThereIsRoom) {
  EXPECT_EQ(SplitRows(400, {{1.0, 1000}, {3.0, 1000}}), (std::vector<Range>{{0, 100}, {100, 400}}));
  // The faster one has room for 250 only; the other takes the rest.
  EXPECT_EQ(SplitRows(400, {{1.0, 1000}, {3.0, 250}}), (std::vector<Range>{{0, 150}, {150, 400}}));
}

TEST(SplitRowsTest, NobodyGetsNothing) {
  EXPECT_EQ(SplitRows(3, {{1e12, 9}, {1.0, 9}, {1.0, 9}}),
            (std::vector<Range>{{0, 1}, {1, 2}, {2, 3}}));
}

TEST(SplitRowsTest, RefusesWhatHasNoRoom) {
  EXPECT_EQ(SplitRows(10, {}), std::nullopt);
  EXPECT_EQ(SplitRows(10, {{1.0, 4}, {1.0, 5}}), std::nullopt);
  EXPECT_EQ(SplitRows(10, {{1.0, 40}, {1.0, 0}}), std::nullopt);
  EXPECT_EQ(SplitRows(1, {{1.0, 40}, {1.0, 40}}), std::nullopt);
}

TEST(SplitRowsTest, CoversEveryRowOnceWithinCapacity) {
  std::mt19937 random(7);
  for (int round = 0; round < 2000; ++round) {
    SCOPED_TRACE(round);
    const int64_t rows = 1 + random() % 1000;
    std::vector<HeadHolder> holders(1 + random() % 6);
    int64_t room = 0;
    bool all_have_room = true;
    for (HeadHolder& holder : holders) {
      holder.bytes_per_second = std::pow(10.0, static_cast<int>(random() % 7) - 3);
      holder.row_capacity = random() % 3 == 0 ? random() % 5 : random() % 900;
      room += holder.row_capacity;
      all_have_room &= holder.row_capacity > 0;
    }
    const auto blocks = SplitRows(rows, holders);
    const bool possible =
        all_have_room && room >= rows && static_cast<int64_t>(holders.size()) <= rows;
    ASSERT_EQ(blocks.has_value(), possible);
    if (!possible) continue;
    int64_t next = 0;
    for (size_t i = 0; i < holders.size(); ++i) {
      ASSERT_EQ((*blocks)[i].begin, next);
      ASSERT_GE((*blocks)[i].size(), 1);
      ASSERT_LE((*blocks)[i].size(), holders[i].row_capacity);
      next = (*blocks)[i].end;
    }
    ASSERT_EQ(next, rows);
  }
}

}  // namespace
}  // namespace renga::partition

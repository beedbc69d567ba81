#include "model/block_rows.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <numeric>
#include <random>
#include <vector>

#include "base/testing/status_matchers.h"

namespace renga::model {
namespace {

using ::renga::testing::StatusIs;

std::vector<int32_t> IdsOf(const BlockRows& rows) {
  std::vector<int32_t> ids;
  for (int64_t i = 0; i < rows.size(); ++i) ids.push_back(rows.id(i));
  return ids;
}

TEST(BlockRowsTest, BlocksOfAnyOrderHaveEveryRowOnce) {
  std::mt19937 random(7);
  for (int round = 0; round < 300; ++round) {
    const int64_t vocabulary = 2 + static_cast<int64_t>(random() % 60);
    RowSet near;
    for (int32_t row = 0; row < vocabulary; ++row) {
      if (random() % 3 == 0) near.push_back(row);
    }
    // The order, the plain way.
    std::vector<int32_t> order = near;
    for (int32_t row = 0; row < vocabulary; ++row) {
      if (!std::binary_search(near.begin(), near.end(), row)) order.push_back(row);
    }
    const auto begin = static_cast<int64_t>(random() % static_cast<uint64_t>(vocabulary));
    const auto size =
        static_cast<int64_t>(1 + random() % static_cast<uint64_t>(vocabulary - begin));
    const BlockRows rows = BlockRows::At({begin, begin + size}, &near, vocabulary);
    std::vector<int32_t> expected(order.begin() + begin, order.begin() + begin + size);
    std::sort(expected.begin(), expected.end());
    ASSERT_EQ(IdsOf(rows), expected) << "round " << round;
    EXPECT_EQ(rows.range().begin, expected.front());
    EXPECT_EQ(rows.range().end, expected.back() + 1);
    EXPECT_EQ(rows.contiguous(), rows.range().size() == size);
    EXPECT_EQ(rows.ids().size(), rows.contiguous() ? 0u : expected.size());
    for (int32_t id = -1; id <= vocabulary; ++id) {
      ASSERT_EQ(rows.Contains(id), std::binary_search(expected.begin(), expected.end(), id));
    }
  }
}

TEST(BlockRowsTest, WithoutNearRowsPlacesAreIds) {
  const BlockRows rows = BlockRows::At({3, 7}, nullptr, 10);
  EXPECT_TRUE(rows.contiguous());
  EXPECT_EQ(IdsOf(rows), (std::vector<int32_t>{3, 4, 5, 6}));
  EXPECT_TRUE(BlockRows().empty());
  const RowSet near = {1};
  EXPECT_TRUE(BlockRows::At({}, &near, 10).empty());
}

TEST(BlockRowsTest, RowSetsOfNoVocabularyAreRefused) {
  ModelConfig config;
  config.vocab_size = 10;
  EXPECT_OK(CheckRowSet({0, 9}, config, "rows"));
  for (const RowSet& wrong : {RowSet{}, RowSet{-1}, RowSet{10}, RowSet{2, 2}, RowSet{3, 1}}) {
    EXPECT_THAT(CheckRowSet(wrong, config, "rows"), StatusIs(absl::StatusCode::kInvalidArgument));
  }
}

}  // namespace
}  // namespace renga::model

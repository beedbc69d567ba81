#include "model/token_mask.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <memory>
#include <random>
#include <vector>

#include "base/testing/status_matchers.h"

namespace renga::model {
namespace {

using ::renga::testing::StatusIs;

TEST(TokenMaskTest, ListsAndBitsSayTheSame) {
  std::mt19937_64 random(1);
  for (const int64_t vocab : {1, 7, 8, 64, 1000, 1001}) {
    for (const uint64_t share : {1, 2, 40, 300}) {
      std::vector<int32_t> ids;
      for (int32_t id = 0; id < vocab; ++id) {
        if (random() % share == 0) ids.push_back(id);
      }
      if (ids.empty()) ids.push_back(0);
      const TokenMask mask = TokenMask::Of(ids, vocab);
      EXPECT_EQ(mask.count(), std::ssize(ids));
      EXPECT_OK(mask.CheckFits(vocab));
      EXPECT_NE(mask.ids().empty(), mask.bits().empty());
      for (int32_t id = 0; id < vocab + 20; ++id) {
        EXPECT_EQ(mask.Contains(id), std::binary_search(ids.begin(), ids.end(), id));
      }
      const auto back = TokenMask::FromParts({mask.ids().begin(), mask.ids().end()},
                                             {mask.bits().begin(), mask.bits().end()});
      ASSERT_OK(back.status());
      EXPECT_EQ(*back, mask);
      RowSet scattered;
      for (int32_t id = 0; id < vocab; id += 3) scattered.push_back(id);
      for (const BlockRows& rows :
           {BlockRows(0, vocab), BlockRows(vocab / 3, vocab / 2), BlockRows(vocab / 2, vocab),
            BlockRows::At({.begin = 0, .end = std::ssize(scattered)}, &scattered, vocab)}) {
        std::vector<int32_t> inside;
        for (const int32_t id : ids) {
          if (rows.Contains(id)) inside.push_back(id);
        }
        EXPECT_EQ(mask.IdsIn(rows), inside);
        EXPECT_EQ(mask.CountIn(rows), std::ssize(inside));
      }
    }
  }
}

TEST(TokenMaskTest, WhatComesFromOutsideIsChecked) {
  EXPECT_THAT(TokenMask::FromParts({}, {}).status(), StatusIs(absl::StatusCode::kInvalidArgument));
  EXPECT_THAT(TokenMask::FromParts({}, {0, 0}).status(),
              StatusIs(absl::StatusCode::kInvalidArgument));
  EXPECT_THAT(TokenMask::FromParts({1}, {1}).status(),
              StatusIs(absl::StatusCode::kInvalidArgument));
  EXPECT_THAT(TokenMask::FromParts({-1, 1}, {}).status(),
              StatusIs(absl::StatusCode::kInvalidArgument));
  EXPECT_THAT(TokenMask::FromParts({2, 1}, {}).status(),
              StatusIs(absl::StatusCode::kInvalidArgument));
  EXPECT_THAT(TokenMask::FromParts({1, 1}, {}).status(),
              StatusIs(absl::StatusCode::kInvalidArgument));
  EXPECT_THAT(TokenMask::FromParts({5, 10}, {})->CheckFits(10),
              StatusIs(absl::StatusCode::kInvalidArgument));
  EXPECT_OK(TokenMask::FromParts({5, 9}, {})->CheckFits(10));
  EXPECT_OK(TokenMask::FromParts({}, {0xFF, 0x03})->CheckFits(10));
  EXPECT_THAT(TokenMask::FromParts({}, {0xFF, 0x07})->CheckFits(10),
              StatusIs(absl::StatusCode::kInvalidArgument));
  EXPECT_THAT(TokenMask::FromParts({}, {0xFF})->CheckFits(10),
              StatusIs(absl::StatusCode::kInvalidArgument));
  EXPECT_THAT(TokenMask::FromParts({}, {0xFF, 0x03, 0x00})->CheckFits(10),
              StatusIs(absl::StatusCode::kInvalidArgument));
}

}  // namespace
}  // namespace renga::model

#include "worker/engine/byte_ring.h"

#include <cstdint>
#include <deque>
#include <random>

#include "gtest/gtest.h"

namespace renga::engine {
namespace {

TEST(ByteRingTest, GoesRound) {
  ByteRing ring(10);
  EXPECT_EQ(ring.Find(11), std::nullopt);
  ring.Take(*ring.Find(4), 4);
  EXPECT_EQ(ring.Find(6), 4);
  ring.Take(4, 3);
  EXPECT_EQ(ring.Find(4), std::nullopt);  // three behind, none in front
  ring.FreeFirst();
  EXPECT_EQ(ring.Find(4), 0);
  ring.Take(0, 4);
  EXPECT_EQ(ring.Find(1), std::nullopt);
  ring.FreeFirst();
  EXPECT_EQ(ring.Find(6), 4);
  ring.FreeFirst();
  EXPECT_EQ(ring.Find(10), 0);
}

TEST(ByteRingTest, RangesNeverOverlap) {
  std::mt19937 random(7);
  ByteRing ring(1000);
  std::deque<std::pair<int64_t, int64_t>> taken;
  int refused = 0;
  for (int i = 0; i < 10'000; ++i) {
    const int64_t size = 1 + static_cast<int64_t>(random() % 400);
    const auto begin = ring.Find(size);
    if (!begin.has_value()) {
      ++refused;
      ASSERT_FALSE(taken.empty());
      ring.FreeFirst();
      taken.pop_front();
      continue;
    }
    ASSERT_GE(*begin, 0);
    ASSERT_LE(*begin + size, 1000);
    for (const auto& [other, end] : taken) ASSERT_TRUE(*begin >= end || *begin + size <= other);
    ring.Take(*begin, size);
    taken.emplace_back(*begin, *begin + size);
  }
  EXPECT_GT(refused, 1000);
}

}  // namespace
}  // namespace renga::engine

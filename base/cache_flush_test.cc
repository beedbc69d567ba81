#include "base/cache_flush.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstddef>
#include <span>
#include <vector>

namespace renga::base {
namespace {

// How fast it makes reading afterwards is for benchmarks; here: every size and place is taken, and
// what was written just before is still there.
TEST(CacheFlush, LosesNothing) {
  std::vector<std::byte> bytes(1000);
  for (const size_t first : {0, 1, 63, 64, 65}) {
    for (const size_t count : {0, 1, 63, 64, 65, 800}) {
      for (size_t i = 0; i < bytes.size(); ++i)
        bytes[i] = static_cast<std::byte>(i + count + first);
      FlushFromCaches(std::span(bytes).subspan(first, count));
      for (size_t i = 0; i < bytes.size(); ++i) {
        ASSERT_EQ(bytes[i], static_cast<std::byte>(i + count + first)) << first << " " << count;
      }
    }
  }
}

TEST(CacheFlush, SaysTheSameEachTime) {
  const std::vector<std::byte> bytes(4096);
  EXPECT_EQ(FlushFromCaches(bytes), FlushFromCaches(bytes));
}

}  // namespace
}  // namespace renga::base

#include "base/content_hash.h"

#include <cstddef>
#include <set>
#include <string>
#include <vector>

#include "absl/strings/string_view.h"
#include "gtest/gtest.h"

namespace renga::base {
namespace {

std::span<const std::byte> HashedBytes(absl::string_view text) {
  return std::as_bytes(std::span(text.data(), text.size()));
}

TEST(ContentHashTest, KnownValuesOfXxh3) {
  // Published values: names of shards on disk must not change with a library update.
  EXPECT_EQ(HashBytes({}).ToHex(), "99aa06d3014798d86001c324468d497f");
  EXPECT_EQ(HashBytes(HashedBytes("abc")).ToHex(), "06b05ab6733a618578af5f94892f3950");
}

TEST(ContentHashTest, EveryFlippedBitShows) {
  std::vector<std::byte> bytes(300, std::byte{7});
  std::set<std::string> seen = {HashBytes(bytes).ToHex()};
  for (size_t bit = 0; bit < bytes.size() * 8; ++bit) {
    bytes[bit / 8] ^= std::byte{1} << (bit % 8);
    EXPECT_TRUE(seen.insert(HashBytes(bytes).ToHex()).second) << bit;
    bytes[bit / 8] ^= std::byte{1} << (bit % 8);
  }
}

TEST(ContentHashTest, HexKeepsLeadingZeros) {
  EXPECT_EQ((ContentHash{.high = 1, .low = 0xab}).ToHex(), "000000000000000100000000000000ab");
}

}  // namespace
}  // namespace renga::base

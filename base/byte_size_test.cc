#include "base/byte_size.h"

#include <cstdint>
#include <limits>

#include "base/testing/status_matchers.h"
#include "gtest/gtest.h"

namespace renga::base {
namespace {

using ::renga::testing::IsOkAndHolds;
using ::renga::testing::StatusIs;
using ::testing::HasSubstr;

TEST(ParseByteSizeTest, UnitsAsPeopleWriteThem) {
  EXPECT_THAT(ParseByteSize("0"), IsOkAndHolds(0));
  EXPECT_THAT(ParseByteSize("1048576"), IsOkAndHolds(1048576));
  EXPECT_THAT(ParseByteSize("12B"), IsOkAndHolds(12));
  EXPECT_THAT(ParseByteSize("500MiB"), IsOkAndHolds(int64_t{500} << 20));
  EXPECT_THAT(ParseByteSize("3.5 GiB"), IsOkAndHolds(int64_t{7} << 29));
  EXPECT_THAT(ParseByteSize("4GB"), IsOkAndHolds(4000000000));
  EXPECT_THAT(ParseByteSize("512k"), IsOkAndHolds(512 << 10));
  EXPECT_THAT(ParseByteSize("2T"), IsOkAndHolds(int64_t{2} << 40));
  EXPECT_THAT(ParseByteSize("1Gi"), IsOkAndHolds(int64_t{1} << 30));
  EXPECT_THAT(ParseByteSize(" 7 mb "), IsOkAndHolds(7000000));
}

TEST(ParseByteSizeTest, RefusesWhatIsNoSize) {
  for (const char* text : {"", "MiB", "-5MiB", "5 apples", "1.2.3", "5MiBs", "9e9", "nan", "inf",
                           "1000000000000PiB", ".", "0x10"}) {
    EXPECT_THAT(ParseByteSize(text),
                StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("500MiB")))
        << text;
  }
}

TEST(FormatByteSizeTest, PicksABinaryUnit) {
  EXPECT_EQ(FormatByteSize(0), "0 B");
  EXPECT_EQ(FormatByteSize(1023), "1023 B");
  EXPECT_EQ(FormatByteSize(1024), "1.0 KiB");
  EXPECT_EQ(FormatByteSize(524288000), "500.0 MiB");
  EXPECT_EQ(FormatByteSize(int64_t{7} << 29), "3.5 GiB");
  EXPECT_EQ(FormatByteSize(-2048), "-2.0 KiB");
  EXPECT_EQ(FormatByteSize(std::numeric_limits<int64_t>::max()), "8192.0 PiB");
}

}  // namespace
}  // namespace renga::base

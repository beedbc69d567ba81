#include "tests/lan/delay_line.h"

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace renga::lan {
namespace {

using ::testing::Optional;

constexpr int64_t kMicrosecond = 1000;

Frame FrameOf(size_t bytes, int mark = 0) { return Frame(bytes, static_cast<std::byte>(mark)); }

TEST(DelayLine, AFrameArrivesExactlyAfterTheDelay) {
  DelayLine line({.delay_ns = 5000 * kMicrosecond});
  ASSERT_TRUE(line.Push(FrameOf(100), 7));
  EXPECT_THAT(line.next_due_ns(), Optional(7 + 5000 * kMicrosecond));
  EXPECT_EQ(line.PopDue(6 + 5000 * kMicrosecond), std::nullopt);
  EXPECT_THAT(line.PopDue(7 + 5000 * kMicrosecond), Optional(FrameOf(100)));
  EXPECT_EQ(line.next_due_ns(), std::nullopt);
}

TEST(DelayLine, FramesLeaveOneAfterTheOtherAtTheRate) {
  // 976 bytes and 24 around them: 1000 bytes are 8 us at 1 Gbit/s.
  DelayLine line({.delay_ns = 100 * kMicrosecond, .bits_per_second = 1'000'000'000});
  ASSERT_TRUE(line.Push(FrameOf(976, 1), 0));
  ASSERT_TRUE(line.Push(FrameOf(976, 2), 0));
  EXPECT_THAT(line.next_due_ns(), Optional(108 * kMicrosecond));
  EXPECT_THAT(line.PopDue(110 * kMicrosecond), Optional(FrameOf(976, 1)));
  EXPECT_EQ(line.PopDue(110 * kMicrosecond), std::nullopt);
  EXPECT_THAT(line.next_due_ns(), Optional(116 * kMicrosecond));
  // The wire was free meanwhile: nothing is saved up.
  ASSERT_TRUE(line.Push(FrameOf(976, 3), 1000 * kMicrosecond));
  line.PopDue(1000 * kMicrosecond);
  EXPECT_THAT(line.next_due_ns(), Optional(1108 * kMicrosecond));
}

TEST(DelayLine, SmallFramesTakeTheWireForAtLeastEightyFourBytes) {
  DelayLine line({.bits_per_second = 8'000'000});  // one byte per microsecond
  ASSERT_TRUE(line.Push(FrameOf(1), 0));
  EXPECT_THAT(line.next_due_ns(), Optional(84 * kMicrosecond));
}

TEST(DelayLine, DropsWhatDoesNotFitTheBuffer) {
  DelayLine line({.bits_per_second = 8'000'000, .max_waiting_bytes = 1500});
  EXPECT_TRUE(line.Push(FrameOf(976), 0));                   // on the wire at once
  EXPECT_TRUE(line.Push(FrameOf(976), 0));                   // waits for 1000 bytes
  EXPECT_TRUE(line.Push(FrameOf(976), 500 * kMicrosecond));  // behind 1500 bytes
  EXPECT_FALSE(line.Push(FrameOf(976), 500 * kMicrosecond));
  // Time makes room again.
  EXPECT_TRUE(line.Push(FrameOf(976), 2000 * kMicrosecond));
}

TEST(DelayLine, HoldsABoundedNumberOfBytesOnAnUnlimitedLink) {
  DelayLine line({.delay_ns = kMicrosecond, .max_held_bytes = 250});
  EXPECT_TRUE(line.Push(FrameOf(100), 0));
  EXPECT_TRUE(line.Push(FrameOf(100), 0));
  EXPECT_FALSE(line.Push(FrameOf(100), 0));
  EXPECT_TRUE(line.PopDue(kMicrosecond).has_value());
  EXPECT_TRUE(line.Push(FrameOf(100), kMicrosecond));
}

}  // namespace
}  // namespace renga::lan

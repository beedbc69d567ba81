// Streams of pieces that stand still, end early or are given up.
#include "worker/service/piece_fetcher.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <memory>
#include <vector>

#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "base/testing/status_matchers.h"
#include "transport/dialer.h"
#include "worker/service/testing/test_coordinator.h"
#include "worker/service/testing/test_setup.h"

namespace renga::worker {
namespace {

using ::renga::testing::StatusIs;
using testing::SmallModel;
using testing::TestCoordinator;

constexpr absl::Duration kLong = absl::Seconds(60);

class PieceFetcherTest : public ::testing::Test {
 protected:
  PieceFetcherTest()
      : coordinator_({.model = &SmallModel()}),
        dialer_(transport::CreateInsecureLoopbackDialer()),
        fetcher_(dialer_->Dial({.address = coordinator_.address(), .name = "coordinator"},
                               transport::ChannelPurpose::kShards),
                 SmallModel().model_id()) {}

  TestCoordinator coordinator_;
  const std::unique_ptr<transport::Dialer> dialer_;
  PieceFetcher fetcher_;
};

const std::vector<PieceId> kThree = {
    {.tensor = 4, .piece = 0}, {.tensor = 5, .piece = 0}, {.tensor = 7, .piece = 0}};

TEST_F(PieceFetcherTest, BringsPiecesInTheOrderInWhichTheyWereAskedFor) {
  EXPECT_EQ(fetcher_.Expected(), nullptr);
  EXPECT_THAT(fetcher_.Next(kLong), StatusIs(absl::StatusCode::kFailedPrecondition));
  fetcher_.Begin(kThree);
  for (const PieceId& id : kThree) {
    ASSERT_NE(fetcher_.Expected(), nullptr);
    EXPECT_EQ(*fetcher_.Expected(), id);
    ASSERT_OK_AND_ASSIGN(const std::string bytes, fetcher_.Next(kLong));
    EXPECT_EQ(bytes.size(), SmallModel().file().tensors()[id.tensor].byte_size);
  }
  EXPECT_EQ(fetcher_.Expected(), nullptr);
  // Given up in the middle, for others.
  fetcher_.Begin(kThree);
  ASSERT_OK(fetcher_.Next(kLong));
  fetcher_.Begin({kThree[0]});
  EXPECT_OK(fetcher_.Next(kLong));
}

TEST_F(PieceFetcherTest, WaitsNoLongerThanItIsTold) {
  fetcher_.Begin(kThree);
  ASSERT_OK(fetcher_.Next(kLong));
  coordinator_.StallFetches(true);
  fetcher_.Begin(kThree);
  EXPECT_THAT(fetcher_.Next(absl::Milliseconds(50)), StatusIs(absl::StatusCode::kDeadlineExceeded));
  EXPECT_EQ(fetcher_.Expected(), nullptr);
  coordinator_.StallFetches(false);
  fetcher_.Begin(kThree);
  // However long it took until somebody asked: that is no waiting.
  absl::SleepFor(absl::Milliseconds(100));
  for (size_t i = 0; i < kThree.size(); ++i) EXPECT_OK(fetcher_.Next(kLong));
}

TEST_F(PieceFetcherTest, IsCancelledUntilThatIsTakenBack) {
  fetcher_.SetCancelled(true);
  fetcher_.Begin(kThree);
  EXPECT_THAT(fetcher_.Next(kLong), StatusIs(absl::StatusCode::kCancelled));
  fetcher_.SetCancelled(false);
  fetcher_.Begin(kThree);
  EXPECT_OK(fetcher_.Next(kLong));
}

TEST_F(PieceFetcherTest, SaysWhyAStreamEnded) {
  coordinator_.CutFetchAfter(1, absl::NotFoundError("no more of them"));
  fetcher_.Begin(kThree);
  EXPECT_OK(fetcher_.Next(kLong));
  EXPECT_THAT(fetcher_.Next(kLong),
              StatusIs(absl::StatusCode::kNotFound, ::testing::HasSubstr("no more of them")));
}

}  // namespace
}  // namespace renga::worker

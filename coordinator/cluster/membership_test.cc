#include "coordinator/cluster/membership.h"

#include <memory>
#include <string>
#include <vector>

#include "base/testing/status_matchers.h"
#include "coordinator/cluster/guess_limiter.h"
#include "gtest/gtest.h"

namespace renga::cluster {
namespace {

using ::renga::testing::StatusIs;
using ::testing::HasSubstr;

class MembershipTest : public ::testing::Test {
 protected:
  Member Join(const std::string& id, const std::string& name = "ada",
              const std::string& address = "10.0.0.1:7000") {
    absl::StatusOr<Member> member =
        table_.Join({.id = id, .name = name, .address = address, .offer = {}});
    EXPECT_OK(member);
    return *member;
  }

  absl::Duration now_ = absl::Seconds(100);
  Membership table_{[this] { return now_; }};
};

TEST_F(MembershipTest, SilentMembersAreLostAndStayListed) {
  int news = 0;
  table_.AddListener([&] { ++news; });
  const Member first = Join("w-1", "ada");
  const Member second = Join("w-2", "bob");
  EXPECT_EQ(news, 2);
  now_ += absl::Seconds(3);
  EXPECT_TRUE(table_.Heard("w-2", second.incarnation, {.epoch = 9}));
  now_ += absl::Seconds(2);
  table_.LoseSilent();
  EXPECT_EQ(news, 3);
  const std::vector<Member> members = table_.Members();
  ASSERT_EQ(members.size(), 2u);
  EXPECT_EQ(members[0].id, "w-2");
  EXPECT_TRUE(members[0].alive);
  EXPECT_EQ(members[0].last_heartbeat.epoch, 9u);
  EXPECT_FALSE(members[1].alive);
  EXPECT_THAT(members[1].lost_reason, HasSubstr("no heartbeat for 5.0 s"));
  EXPECT_FALSE(table_.Heard("w-1", first.incarnation, {}));
}

TEST_F(MembershipTest, AnotherOfferIsNews) {
  int news = 0;
  const int listener = table_.AddListener([&news] { ++news; });
  const Member member = Join("w-1");
  Heartbeat heartbeat;
  EXPECT_TRUE(table_.Heard("w-1", member.incarnation, heartbeat));
  heartbeat.memory_offered_bytes = member.offer.memory_bytes;
  EXPECT_TRUE(table_.Heard("w-1", member.incarnation, heartbeat));
  EXPECT_EQ(news, 1);
  EXPECT_EQ(table_.Members()[0].offer.memory_bytes, member.offer.memory_bytes);
  heartbeat.memory_offered_bytes = 5;
  EXPECT_TRUE(table_.Heard("w-1", member.incarnation, heartbeat));
  EXPECT_EQ(news, 2);
  EXPECT_EQ(table_.Members()[0].offer.memory_bytes, 5);
  table_.RemoveListener(listener);
}

TEST_F(MembershipTest, AStreamOfAnEarlierIncarnationChangesNothing) {
  const Member old = Join("w-1");
  const Member present = Join("w-1");
  EXPECT_GT(present.incarnation, old.incarnation);
  table_.Lose("w-1", old.incarnation, "stream ended");
  EXPECT_FALSE(table_.Heard("w-1", old.incarnation, {}));
  ASSERT_EQ(table_.Members().size(), 1u);
  EXPECT_TRUE(table_.Members()[0].alive);
  table_.Lose("w-1", present.incarnation, "stream ended");
  EXPECT_FALSE(table_.Members()[0].alive);
}

TEST_F(MembershipTest, TwoProcessesWithOneCertificateDoNotReplaceEachOther) {
  const Member first = Join("w-1", "ada", "10.0.0.1:7000");
  const JoinRequest second = {.id = "w-1", .name = "ada", .address = "10.0.0.1:7001", .offer = {}};
  EXPECT_THAT(table_.Join(second),
              StatusIs(absl::StatusCode::kUnavailable, HasSubstr("ada at 10.0.0.1:7000")));
  EXPECT_TRUE(table_.IsAlive("w-1", first.incarnation));
  // A restart on another port is let in when its former self has gone.
  table_.Lose("w-1", first.incarnation, "gone");
  EXPECT_OK(table_.Join(second));
  EXPECT_EQ(table_.Members().size(), 1u);
}

TEST_F(MembershipTest, LeavingIsNoFault) {
  int news = 0;
  table_.AddListener([&] { ++news; });
  const Member first = Join("w-1");
  table_.Leave("w-1", first.incarnation + 1);
  EXPECT_TRUE(table_.Members()[0].alive);
  table_.Leave("w-1", first.incarnation);
  table_.Lose("w-1", first.incarnation, "its connection ended");
  EXPECT_EQ(news, 2);
  EXPECT_TRUE(table_.Members()[0].left);
  EXPECT_EQ(table_.Members()[0].lost_reason, "it left");
  Join("w-1");
  EXPECT_FALSE(table_.Members()[0].left);
}

TEST_F(MembershipTest, WithoutCertificatesNameAndAddressTellWhoIsBack) {
  const Member first = Join("");
  const Member other = Join("", "ada", "10.0.0.1:7001");
  EXPECT_NE(first.id, other.id);
  table_.Lose(first.id, first.incarnation, "gone");
  EXPECT_EQ(Join("").id, first.id);
  EXPECT_EQ(table_.Members().size(), 2u);
}

TEST_F(MembershipTest, AWorkerThatEnrolledAnewReplacesItsLostSelf) {
  const Member first = Join("w-1", "ada", "10.0.0.1:7000");
  const Member other = Join("w-2", "ada", "10.0.0.2:7000");
  table_.Lose("w-1", first.incarnation, "gone");
  table_.Lose("w-2", other.incarnation, "gone");
  Join("w-3", "ada", "10.0.0.1:7001");
  const std::vector<Member> members = table_.Members();
  ASSERT_EQ(members.size(), 2u);
  EXPECT_EQ(members[0].id, "w-3");
  EXPECT_EQ(members[1].id, "w-2") << "of the same name on another machine";
}

TEST_F(MembershipTest, TheTableIsBounded) {
  for (size_t i = 0; i < Membership::kMaxAlive; ++i) {
    Join(absl::StrCat("w-", i), absl::StrCat("name-", i));
  }
  EXPECT_THAT(table_.Join({.id = "one-more", .name = "", .address = "", .offer = {}}),
              testing::StatusIs(absl::StatusCode::kResourceExhausted));
  now_ += absl::Seconds(5);
  table_.LoseSilent();
  EXPECT_EQ(table_.Members().size(), Membership::kMaxLost);
}

TEST_F(MembershipTest, RemovedListenersHearNothing) {
  int news = 0;
  const int id = table_.AddListener([&] { ++news; });
  Join("w-1");
  table_.RemoveListener(id);
  Join("w-2");
  EXPECT_EQ(news, 1);
}

TEST(GuessLimiterTest, OnlyTheGuessingHostWaits) {
  GuessLimiter limiter;
  absl::Duration now = absl::Seconds(1);
  for (int i = 0; i < 10; ++i) {
    EXPECT_TRUE(limiter.Allows("10.0.0.9", now));
    limiter.WrongGuess("10.0.0.9", now);
  }
  EXPECT_FALSE(limiter.Allows("10.0.0.9", now));
  EXPECT_TRUE(limiter.Allows("10.0.0.8", now));
  now += GuessLimiter::kRefill;
  EXPECT_TRUE(limiter.Allows("10.0.0.9", now));
  limiter.WrongGuess("10.0.0.9", now);
  EXPECT_FALSE(limiter.Allows("10.0.0.9", now));
}

TEST(GuessLimiterTest, MemoryIsBounded) {
  GuessLimiter limiter;
  for (int i = 0; i < 5000; ++i) {
    limiter.WrongGuess(absl::StrCat("host-", i), absl::Milliseconds(i));
  }
  EXPECT_TRUE(limiter.Allows("host-1", absl::Seconds(1)));
}

TEST(WorkerIdTest, IdsDiffer) {
  EXPECT_NE(NewWorkerId(), NewWorkerId());
  EXPECT_EQ(NewWorkerId().size(), 14u);
}

}  // namespace
}  // namespace renga::cluster

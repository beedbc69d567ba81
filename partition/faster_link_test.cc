#include "partition/faster_link.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <random>
#include <string>
#include <vector>

#include "base/testing/status_matchers.h"
#include "partition/explain.h"
#include "partition/planner_fixture.h"
#include "partition/what_if.h"

namespace renga::partition {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::Not;

void Join(LinkTable& links, int one, int other, const LinkProfile& link) {
  links.pairs.push_back({.from = one, .to = other, .link = link});
  links.pairs.push_back({.from = other, .to = one, .link = link});
}

// The plan, and what ExploreChanges says of the one link that counts.
Change BestLinkFor(const TestModel& model, const std::vector<WorkerProfile>& workers,
                   const PlanRequest& request, Replicas& now) {
  absl::StatusOr<Replicas> planned = PlanReplicas(model.model, model.footprint, workers, request);
  EXPECT_OK(planned);
  now = *std::move(planned);
  const auto changes = ExploreChanges(model.model, model.footprint, workers, request, now);
  EXPECT_OK(changes);
  return changes->back();
}

TEST(FasterLinkTest, BothDirectionsOfOneLinkAndNoOtherBecomeFaster) {
  LinkTable links{.default_link = {.latency_us = 100, .bytes_per_second = 1e8}, .pairs = {}};
  links.pairs.push_back({.from = 0, .to = 1, .link = {.latency_us = 500, .bytes_per_second = 0}});
  links.pairs.push_back({.from = 0, .to = 1, .link = {.latency_us = 50, .bytes_per_second = 1e9}});
  EXPECT_EQ(LinkBetween(links, 0, 1).latency_us, 50) << "the last one that names a pair counts";
  const LinkTable faster = WithFasterLink(links, 1, 0);
  EXPECT_EQ(LinkBetween(faster, 0, 1), (LinkProfile{.latency_us = 25, .bytes_per_second = 2e9}));
  EXPECT_EQ(LinkBetween(faster, 1, 0), (LinkProfile{.latency_us = 50, .bytes_per_second = 2e8}));
  EXPECT_EQ(LinkBetween(faster, kCoordinator, 0), links.default_link);
}

TEST(FasterLinkTest, TheLinkThatTakesMostOfATokenIsNamed) {
  const TestModel model = MakeTestModel(std::vector<int64_t>(8, 10 * kMiB), 100);
  const std::vector<WorkerProfile> workers = {Worker("a", 60, 10), Worker("b", 60, 10)};
  PlanRequest request = OneStream(100);
  Join(request.links, 0, 1, {.latency_us = 3000, .bytes_per_second = 1.25e8});
  Replicas now;
  const Change change = BestLinkFor(model, workers, request, now);
  ASSERT_TRUE(change.link.has_value());
  EXPECT_THAT((std::vector<std::string>{change.link->one, change.link->other}),
              ::testing::UnorderedElementsAre("a", "b"));
  EXPECT_EQ(change.link->now.latency_us, 3000);
  EXPECT_EQ(change.link->then.bytes_per_second, 2.5e8);
  // 1500 us and half of what a row of 256 numbers takes.
  EXPECT_NEAR(now.plans[0].stream_ms - change.ms, 1.5 + 1024 / 2.5e8 * 1e3, 1e-6);
  EXPECT_THAT(ExplainChanges(now, request.objective, {change}),
              AllOf(HasSubstr("twice as fast"), HasSubstr("tok/s"),
                    HasSubstr("(2 Gbit/s and 1.5e+03 us in place of 1 and 3e+03)")));
}

TEST(FasterLinkTest, WhereNoOneLinkHelpsThatIsSaid) {
  // The slowest of three links sets a group's pace: one that is faster changes nothing.
  const TestModel model = MakeTestModel(std::vector<int64_t>(8, 10 * kMiB), 100, true);
  const std::vector<WorkerProfile> workers = {Worker("a", 60, 10), Worker("b", 60, 10),
                                              Worker("c", 60, 10)};
  PlanRequest request = OneStream(100);
  request.tensor_parallel = 3;
  Replicas now;
  const Change change = BestLinkFor(model, workers, request, now);
  EXPECT_EQ(change.name, "any one link twice as fast");
  EXPECT_FALSE(change.link.has_value());
  EXPECT_EQ(change.ms, now.plans[0].stream_ms);
  EXPECT_THAT(ExplainChanges(now, request.objective, {change}), Not(HasSubstr("in place of")));
}

TEST(FasterLinkTest, ManyStreamsThatOnlyComputeHaveNoUseForOne) {
  const TestModel model = MakeTestModel(std::vector<int64_t>(8, 10 * kMiB), 100);
  const std::vector<WorkerProfile> workers = {Worker("a", 60, 10), Worker("b", 60, 10)};
  PlanRequest request = OneStream(100);
  request.objective = Objective::kManyStreams;
  Replicas now;
  EXPECT_EQ(BestLinkFor(model, workers, request, now).name, "any one link twice as fast");
  // Unless a link carries less than the workers compute: 1024 bytes of a row take 10 ms.
  Join(request.links, 0, 1, {.latency_us = 100, .bytes_per_second = 1e5});
  const Change change = BestLinkFor(model, workers, request, now);
  ASSERT_TRUE(change.link.has_value());
  EXPECT_NEAR(change.ms, now.plans[0].slowest_ms / 2, 1e-9);
}

// On random small clusters: never slower than now, never faster than all links together, and as
// fast as a plan for the changed cluster. Of all links none would give more where all of them are
// on the way.
TEST(FasterLinkTest, IsTheBestOfAllLinksOfSmallClusters) {
  std::mt19937 random(7);
  const auto draw = [&](double low, double high) {
    return std::uniform_real_distribution<double>(low, high)(random);
  };
  const TestModel model = MakeTestModel(std::vector<int64_t>(8, 10 * kMiB), 100);
  for (int round = 0; round < 20; ++round) {
    SCOPED_TRACE(round);
    const std::vector<WorkerProfile> workers = {Worker("a", 60, draw(5, 20)),
                                                Worker("b", 60, draw(5, 20))};
    PlanRequest request = OneStream(0);
    request.for_prompts = 0;
    for (const auto& [one, other] : {std::pair(kCoordinator, 0), {kCoordinator, 1}, {0, 1}}) {
      Join(request.links, one, other,
           {.latency_us = draw(10, 4000), .bytes_per_second = draw(1e6, 1e9)});
    }
    Replicas now;
    const Change change = BestLinkFor(model, workers, request, now);
    ASSERT_TRUE(change.link.has_value());
    double least = now.plans[0].stream_ms;
    for (const auto& [one, other] : {std::pair(kCoordinator, 0), {kCoordinator, 1}, {0, 1}}) {
      PlanRequest faster = request;
      faster.links = WithFasterLink(request.links, one, other);
      ASSERT_OK_AND_ASSIGN(const Plan plan, PlanFor(model, workers, faster));
      least = std::min(least, plan.stream_ms);
    }
    EXPECT_NEAR(change.ms, least, 1e-9);
    for (LinkTable::Pair& pair : request.links.pairs) pair.link = TwiceAsFast(pair.link);
    ASSERT_OK_AND_ASSIGN(const Plan all, PlanFor(model, workers, request));
    EXPECT_LE(all.stream_ms, change.ms + 1e-9);
  }
}

TEST(FasterLinkTest, RanksWhatIsOnTheWayOnly) {
  const TestModel model = MakeTestModel(std::vector<int64_t>(8, 10 * kMiB), 100);
  const std::vector<WorkerProfile> workers = {Worker("a", 60, 10), Worker("b", 60, 10),
                                              Worker("far", 60, 10)};
  PlanRequest request = OneStream(100);
  Join(request.links, kCoordinator, 2, {.latency_us = 50000, .bytes_per_second = 1e6});
  ASSERT_OK_AND_ASSIGN(const Replicas now,
                       PlanReplicas(model.model, model.footprint, workers, request));
  const ShardCosts bytes(model.model, model.footprint, LimitsOf(request));
  const std::vector<UsedLink> ranked = RankUsedLinks(bytes, workers, request, now);
  ASSERT_FALSE(ranked.empty());
  EXPECT_TRUE(std::is_sorted(ranked.begin(), ranked.end(),
                             [](const auto& a, const auto& b) { return a.ms < b.ms - 1e-6; }));
  for (const UsedLink& link : ranked) {
    EXPECT_LT(link.ms, now.plans[0].stream_ms);
    EXPECT_FALSE(link.one == kCoordinator && link.other == 2);
  }
}

}  // namespace
}  // namespace renga::partition

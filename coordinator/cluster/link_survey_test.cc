#include "coordinator/cluster/link_survey.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <memory>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "base/file.h"
#include "base/testing/status_matchers.h"
#include "base/testing/temp_folder.h"
#include "coordinator/cluster/testing/fake_workers.h"

namespace renga::cluster {
namespace {

using ::renga::testing::StatusIs;
using ::testing::ElementsAre;
using ::testing::IsEmpty;
using ::testing::UnorderedElementsAre;

constexpr absl::Duration kPatience = absl::Seconds(60);  // ends a hang, measures nothing

std::string NewFile() { return testing::NewTempFolder() + "/links.json"; }

LinkProfile Profile(std::string from, std::string to, double rtt_us, int64_t measured_at_s = 1) {
  auto link = MakeLinkProfile(std::move(from), std::move(to),
                              {{.payload_bytes = 1000, .rtt_p50_us = rtt_us, .rtt_p99_us = 900}},
                              measured_at_s);
  return link.value();
}

TEST(LinkBook, BandwidthIsWhatLargeMessagesTakeLonger) {
  // 100000 bytes more take 1 ms more there and back: 500 us each way.
  ASSERT_OK_AND_ASSIGN(const LinkProfile link,
                       MakeLinkProfile("a", "b", {{1000, 200, 300}, {101000, 1200, 1500}}, 7));
  EXPECT_DOUBLE_EQ(link.bytes_per_second, 100000 / 500e-6);
  // Noise may make the larger one faster: then nothing is known.
  ASSERT_OK_AND_ASSIGN(const LinkProfile odd,
                       MakeLinkProfile("a", "b", {{1000, 200, 300}, {2000, 150, 300}}, 7));
  EXPECT_EQ(odd.bytes_per_second, 0);
}

TEST(LinkBook, TimesThatAreNoneAreRefused) {
  const double nan = std::numeric_limits<double>::quiet_NaN();
  const std::vector<LinkTime> bad[] = {
      {},
      {{0, 1, 1}},
      {{1000, 0, 1}},
      {{1000, 1, -1}},
      {{1000, nan, 1}},
      {{1000, 1, std::numeric_limits<double>::infinity()}},
      {{2000, 1, 1}, {1000, 1, 1}},
      {{1000, 1, 1}, {1000, 1, 1}},
      std::vector<LinkTime>(9, {1000, 1, 1}),
  };
  for (const std::vector<LinkTime>& times : bad) {
    EXPECT_THAT(MakeLinkProfile("a", "b", times, 1), StatusIs(absl::StatusCode::kInvalidArgument));
  }
}

TEST(LinkBook, ALinkHasOneProfileWhicheverEndIsNamedFirst) {
  LinkBook book;
  book.Put(Profile("a", "b", 100));
  book.Put(Profile("b", "a", 300));
  ASSERT_EQ(book.links().size(), 1u);
  EXPECT_EQ(book.Find("a", "b")->times[0].rtt_p50_us, 300);
  EXPECT_EQ(book.Find("a", "c"), nullptr);
}

TEST(LinkBook, AFullBookForgetsTheOldest) {
  LinkBook book;
  for (size_t i = 0; i < LinkBook::kMaxLinks; ++i) {
    book.Put(Profile("a", absl::StrCat("b", i), 100, static_cast<int64_t>((i + 7) % 4096)));
  }
  const std::string oldest = absl::StrCat("b", 4096 - 7);
  ASSERT_NE(book.Find("a", oldest), nullptr);
  book.Put(Profile("a", "b3", 200, 5000));  // known: nothing needs to go
  ASSERT_NE(book.Find("a", oldest), nullptr);
  book.Put(Profile("a", "c", 100, 5000));
  EXPECT_EQ(book.links().size(), LinkBook::kMaxLinks);
  EXPECT_EQ(book.Find("a", oldest), nullptr);
  EXPECT_NE(book.Find("a", "c"), nullptr);
}

TEST(LinkBook, ReadsWhatItWroteAndNothingElse) {
  const std::string path = NewFile();
  EXPECT_THAT(ReadLinkBook(path), StatusIs(absl::StatusCode::kNotFound));
  LinkBook book;
  ASSERT_OK_AND_ASSIGN(LinkProfile link,
                       MakeLinkProfile("a", "b", {{1000, 200.5, 300}, {101000, 1200, 1500}}, 7));
  book.Put(link);
  book.Put(Profile("a", "c", 50));
  ASSERT_OK(WriteLinkBook(path, book));
  ASSERT_OK_AND_ASSIGN(const LinkBook back, ReadLinkBook(path));
  ASSERT_EQ(back.links().size(), 2u);
  const LinkProfile& first = *back.Find("b", "a");
  EXPECT_EQ(first.times[0].rtt_p50_us, 200.5);
  EXPECT_EQ(first.bytes_per_second, link.bytes_per_second);
  EXPECT_EQ(first.measured_at_s, 7);
  for (const char* damaged : {"", "{", "{}", "[1]", "[{}]", R"([{"from":"a","to":"b"}])",
                              R"([{"from":"a","to":"b","measured_at_s":1,"times":[[1,2]]}])",
                              R"([{"from":"a","to":"b","measured_at_s":1,"times":[[1,-2,3]]}])",
                              R"([{"from":1,"to":"b","measured_at_s":1,"times":[[1,2,3]]}])"}) {
    ASSERT_OK(base::WriteFileAtomically(path, damaged));
    EXPECT_THAT(ReadLinkBook(path), StatusIs(absl::StatusCode::kDataLoss)) << damaged;
  }
}

// Workers reached in process; ids sort as they are named.
class LinkSurveyTest : public ::testing::Test {
 protected:
  FakeWorker& Join(const std::string& id) {
    auto& worker = *workers_.emplace_back(std::make_unique<FakeWorker>(&shared_, id));
    worker.StartInProcess();
    dialer_.Register(id, worker.server());
    EXPECT_OK(membership_.Join(worker.AsMember(1 << 20)).status());
    return worker;
  }
  LinkSurvey::Options Options() {
    LinkSurvey::Options options;
    options.membership = &membership_;
    options.dialer = &dialer_;
    options.file = file_;
    options.payload_bytes = {1000, 101000};
    options.rounds = 2;
    return options;
  }
  static void WaitFor(const std::function<bool()>& condition) {
    const absl::Time deadline = absl::Now() + kPatience;
    while (!condition()) {
      ASSERT_LT(absl::Now(), deadline);
      absl::SleepFor(absl::Milliseconds(5));
    }
  }
  static std::vector<std::string> Names(const std::vector<LinkProfile>& links) {
    std::vector<std::string> names;
    for (const LinkProfile& link : links) names.push_back(absl::StrCat(link.from, "-", link.to));
    return names;
  }

  const std::string file_ = NewFile();
  FakeWorkers shared_;
  std::vector<std::unique_ptr<FakeWorker>> workers_;
  transport::InProcessDialer dialer_{nullptr};
  Membership membership_;
};

TEST_F(LinkSurveyTest, EveryPairIsMeasuredOnceByTheLesserOfItsEnds) {
  FakeWorker& a = Join("a");
  FakeWorker& b = Join("b");
  FakeWorker& c = Join("c");
  LinkSurvey survey(Options());
  WaitFor([&] { return survey.Complete(); });
  const std::vector<LinkProfile> links = survey.Links();
  EXPECT_THAT(Names(links), UnorderedElementsAre("coordinator-a", "coordinator-b", "coordinator-c",
                                                 "a-b", "a-c", "b-c"));
  EXPECT_THAT(a.measured_links(), UnorderedElementsAre("b", "c"));
  EXPECT_THAT(b.measured_links(), ElementsAre("c"));
  EXPECT_THAT(c.measured_links(), IsEmpty());
  for (const LinkProfile& link : links) {
    ASSERT_EQ(link.times.size(), 2u);
    if (link.from == "coordinator") continue;
    EXPECT_EQ(link.times[0].rtt_p50_us, 101);
    EXPECT_EQ(link.times[1].rtt_p50_us, 201);
    EXPECT_DOUBLE_EQ(link.bytes_per_second, 100000 / 50e-6);
  }
}

TEST_F(LinkSurveyTest, ANewWorkersLinksAreAdded) {
  FakeWorker& a = Join("a");
  LinkSurvey survey(Options());
  WaitFor([&] { return survey.Complete(); });
  EXPECT_THAT(Names(survey.Links()), ElementsAre("coordinator-a"));
  Join("b");
  EXPECT_FALSE(survey.Complete() && survey.Links().size() == 1);
  WaitFor([&] { return survey.Complete(); });
  EXPECT_THAT(a.measured_links(), ElementsAre("b"));
  EXPECT_EQ(survey.Links().size(), 3u);
}

TEST_F(LinkSurveyTest, ARestartKnowsTheLinksAndMeasuresNone) {
  FakeWorker& a = Join("a");
  Join("b");
  {
    LinkSurvey survey(Options());
    WaitFor([&] { return survey.Complete(); });
  }
  LinkSurvey again(Options());
  EXPECT_TRUE(again.Complete());
  EXPECT_EQ(again.Links().size(), 3u);
  EXPECT_EQ(a.measured_links().size(), 1u);
}

TEST_F(LinkSurveyTest, OldProfilesAreMeasuredAgainWhileTheClusterRests) {
  FakeWorker& a = Join("a");
  Join("b");
  LinkBook book;
  book.Put(Profile("a", "b", 5));  // of 1970
  ASSERT_OK(WriteLinkBook(file_, book));
  LinkSurvey::Options options = Options();
  options.idle_after = absl::ZeroDuration();
  options.rest = absl::ZeroDuration();
  LinkSurvey survey(options);
  WaitFor([&] { return !a.measured_links().empty(); });
  WaitFor([&] { return survey.Links().size() == 3 && survey.Links()[2].times[0].rtt_p50_us > 5; });
}

TEST_F(LinkSurveyTest, AWorkerThatCannotMeasureOrLiesHoldsNothingUp) {
  Join("a").set_misbehaviour(Misbehaviour::kWrongSizes);
  Join("b").set_misbehaviour(Misbehaviour::kDiesOnStep);
  Join("c");
  LinkSurvey survey(Options());
  WaitFor([&] { return survey.Complete(); });
  EXPECT_THAT(Names(survey.Links()), UnorderedElementsAre("coordinator-a", "coordinator-c"));
}

TEST_F(LinkSurveyTest, ItEndsWhileLinksAreMeasured) {
  for (const char* id : {"a", "b", "c", "d"}) Join(id);
  LinkSurvey::Options options = Options();
  options.rounds = 1000;
  options.time_per_link = absl::Seconds(10);
  LinkSurvey survey(options);
}

}  // namespace
}  // namespace renga::cluster

#include "worker/service/result_outbox.h"

#include <cstdint>
#include <memory>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "base/testing/status_matchers.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "proto/step.pb.h"
#include "transport/local_worker.h"

namespace renga::worker {
namespace {

using ::renga::testing::StatusIs;
using ::testing::ElementsAre;
using ::testing::IsEmpty;

constexpr uint64_t kEpoch = 5;

proto::StepResult Result(uint64_t number, uint64_t epoch = kEpoch) {
  proto::StepResult result;
  result.set_epoch(epoch);
  result.set_number(number);
  return result;
}

// Takes `room` results, and ends then as one whose peer has gone.
class FakeSink : public transport::ResultSink {
 public:
  explicit FakeSink(size_t room = 100) : room_(room) {}

  bool Write(proto::StepResult&& result) override {
    if (taken_.size() == room_ || !end_.ok()) return false;
    const proto::StepResult taken = std::move(result);
    taken_.push_back(taken.number());
    return true;
  }
  void End(const absl::Status& status) override { end_ = status; }

  const std::vector<uint64_t>& taken() const { return taken_; }
  const absl::Status& end() const { return end_; }

 private:
  const size_t room_;
  std::vector<uint64_t> taken_;
  absl::Status end_;
};

TEST(ResultOutboxTest, WhatIsReadyBeforeTheStreamWaitsForIt) {
  ResultOutbox outbox;
  outbox.Begin(kEpoch);
  outbox.Push(Result(1));
  outbox.Push(Result(2));
  const auto sink = std::make_shared<FakeSink>();
  outbox.Attach(kEpoch, sink);
  outbox.Push(Result(3));
  EXPECT_THAT(sink->taken(), ElementsAre(1, 2, 3));
}

TEST(ResultOutboxTest, WhatIsReadyAfterAStreamsEndWaitsForTheNext) {
  ResultOutbox outbox;
  outbox.Begin(kEpoch);
  const auto first = std::make_shared<FakeSink>(/*room=*/1);
  outbox.Attach(kEpoch, first);
  for (uint64_t number : {1, 2, 3}) outbox.Push(Result(number));
  const auto second = std::make_shared<FakeSink>(/*room=*/1);
  outbox.Attach(kEpoch, second);
  outbox.Push(Result(4));
  const auto third = std::make_shared<FakeSink>();
  outbox.Attach(kEpoch, third);
  outbox.Push(Result(5));
  EXPECT_THAT(first->taken(), ElementsAre(1));
  EXPECT_THAT(second->taken(), ElementsAre(2));
  EXPECT_THAT(third->taken(), ElementsAre(3, 4, 5));
}

TEST(ResultOutboxTest, OnlyTheNewestStreamOfThePresentEpochIsWrittenTo) {
  ResultOutbox outbox;
  outbox.Begin(kEpoch);
  const auto late = std::make_shared<FakeSink>();
  outbox.Attach(kEpoch - 1, late);
  EXPECT_THAT(late->end(), StatusIs(absl::StatusCode::kAborted));
  const auto early = std::make_shared<FakeSink>();
  outbox.Attach(kEpoch + 1, early);
  EXPECT_THAT(early->end(), StatusIs(absl::StatusCode::kFailedPrecondition));

  const auto first = std::make_shared<FakeSink>();
  const auto second = std::make_shared<FakeSink>();
  outbox.Attach(kEpoch, first);
  outbox.Attach(kEpoch, second);
  EXPECT_THAT(first->end(), StatusIs(absl::StatusCode::kAborted));
  outbox.Push(Result(1, kEpoch - 1));
  outbox.Push(Result(2));
  EXPECT_THAT(first->taken(), IsEmpty());
  EXPECT_THAT(second->taken(), ElementsAre(2));

  outbox.Push(Result(3));
  outbox.Begin(kEpoch + 1);
  EXPECT_THAT(second->end(), StatusIs(absl::StatusCode::kAborted));
}

TEST(ResultOutboxTest, ANewEpochDropsWhatWaits) {
  ResultOutbox outbox;
  outbox.Begin(kEpoch);
  outbox.Push(Result(1));
  outbox.Begin(kEpoch + 1);
  const auto sink = std::make_shared<FakeSink>();
  outbox.Attach(kEpoch + 1, sink);
  EXPECT_THAT(sink->taken(), IsEmpty());
}

TEST(ResultOutboxTest, AfterTheEndNothingIsTaken) {
  ResultOutbox outbox;
  outbox.Begin(kEpoch);
  const auto sink = std::make_shared<FakeSink>();
  outbox.Attach(kEpoch, sink);
  outbox.Close(absl::UnavailableError("the worker is leaving"));
  EXPECT_THAT(sink->end(), StatusIs(absl::StatusCode::kUnavailable));
  outbox.Push(Result(1));
  EXPECT_THAT(sink->taken(), IsEmpty());
}

}  // namespace
}  // namespace renga::worker

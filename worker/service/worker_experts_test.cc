// A worker with less memory than a mixture of experts needs, and none of its file: experts are
// shipped when rows choose them, the rest while nothing is to do; whatever goes wrong on the way,
// no answer is wrong, and the next step tries again.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>
#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "base/testing/status_matchers.h"
#include "base/testing/temp_folder.h"
#include "worker/service/piece_collector.h"
#include "worker/service/testing/test_coordinator.h"
#include "worker/service/testing/test_setup.h"
#include "worker/service/testing/worker_driver.h"
#include "worker/service/testing/worker_fixture.h"

namespace renga::worker {
namespace {

using ::renga::testing::StatusIs;
using ::testing::HasSubstr;
using testing::kMiB;
using testing::MakeRows;
using testing::MakeStep;
using testing::SmallMixture;
using testing::TestCoordinator;
using testing::WorkerDriver;

constexpr int64_t kOffered = 24 * kMiB;  // of 27 for experts and some for the rest
constexpr int64_t kExpertsBytes = int64_t{2} * 6 * 3 * 128 * 1536 * 4;

class WorkerExpertsTest : public testing::WorkerTest {
 protected:
  WorkerExpertsTest() : WorkerTest(SmallMixture()) {}

  void StartWorker() {
    driver_ = nullptr;
    worker_ = nullptr;
    WorkerOptions options = Options();
    options.cache_directory = folder_;
    options.packed_directory = folder_;
    options.memory_bytes = kOffered;
    worker_ = Start(options);
    driver_ = std::make_unique<WorkerDriver>(dialer_.get(), *worker_);
  }
  // `holder`: who may keep pieces; "": nobody.
  absl::StatusOr<proto::LoadProgress> Load(const std::string& holder = "") {
    proto::LoadRequest request = OrderWhole(++epoch_);
    request.set_load_lazily(true);
    if (!holder.empty()) {
      proto::PieceHolder& message = *request.add_piece_holders();
      message.set_address(holder);
      message.set_worker_id("holder");
      for (const auto& tensor : request.manifest().tensors()) message.add_tensors(tensor.index());
    }
    const auto progress = driver_->Load(request);
    if (progress.ok()) driver_->OpenResults(epoch_);
    return progress;
  }
  absl::Status SendFirstStep() {
    const model::Step step = MakeStep(epoch_, 1, 0, 20);
    return driver_->SendStep(step, MakeRows(20, 128, 1));
  }
  // How the first step ended.
  absl::Status FirstStep() {
    const absl::Status sent = SendFirstStep();
    if (!sent.ok()) return sent;
    const auto result = driver_->NextResult();
    return result.ok() ? testing::ErrorOf(*result) : result.status();
  }
  void ExpectRightAnswers() {
    const auto steps = [](uint64_t epoch) {
      return std::vector<model::Step>{MakeStep(epoch, 1, 0, 20), MakeStep(epoch, 2, 20, 1),
                                      MakeStep(epoch, 3, 21, 1)};
    };
    static const auto* const kAnswers = new std::vector<std::vector<model::HeadRow>>(
        testing::ReferenceAnswers(SmallMixture(), steps(1)));
    for (const model::Step& step : steps(epoch_)) {
      ASSERT_OK(driver_->SendStep(
          step, MakeRows(step.token_count(), 128, static_cast<uint32_t>(step.number))));
      ASSERT_OK_AND_ASSIGN(const proto::StepResult result, driver_->NextResult());
      ASSERT_EQ(result.error_message(), "");
      EXPECT_TRUE(testing::LogitsOf(result, 1000) ==
                  testing::LogitsOf((*kAnswers)[step.number - 1]));
    }
  }
  proto::Heartbeat WaitFor(const std::function<bool(const proto::Heartbeat&)>& fits) {
    while (true) {
      const proto::Heartbeat heartbeat = coordinator_.WaitForHeartbeat();
      if (heartbeat.epoch() == epoch_ && fits(heartbeat)) return heartbeat;
    }
  }
  void WaitUntilAllIsHere() {
    WaitFor([](const auto& now) { return now.weight_bytes_to_come() == 0; });
  }
  // A step that waits for experts that do not come, as the link stands still.
  void ExpectStandsStill() {
    ASSERT_OK(Load());
    coordinator_.StallFetches(true);
    ASSERT_OK(SendFirstStep());
    // It has begun, and is nowhere near its end.
    absl::SleepFor(absl::Milliseconds(200));
  }
  // Far from the patience with a link that stands still.
  static void ExpectSoon(absl::Time begin) { EXPECT_LT(absl::Now() - begin, absl::Seconds(8)); }

  const std::string folder_ = renga::testing::NewTempFolder();
  uint64_t epoch_ = 0;
  std::unique_ptr<WorkerServer> worker_;
  std::unique_ptr<WorkerDriver> driver_;
};

TEST(PieceCollectorTest, WhatIsOnItsWayWhenAStepBeginsIsLittleOnEveryLink) {
  for (const int64_t ms : {0, 1, 9, 12, 20, 30, 85, 900, 60'000}) {
    SCOPED_TRACE(ms);
    const size_t pieces = PieceCollector::AskedAtOnce(absl::Milliseconds(ms));
    EXPECT_GE(pieces, 1u);
    EXPECT_LE(pieces, 4u);
    if (pieces > 1) {
      EXPECT_LE(static_cast<int64_t>(pieces) * ms, 50);
    }
  }
  EXPECT_EQ(PieceCollector::AskedAtOnce(absl::Milliseconds(9)), 4u) << "1 Gbit/s";
  EXPECT_EQ(PieceCollector::AskedAtOnce(absl::Milliseconds(20)), 2u);
  EXPECT_EQ(PieceCollector::AskedAtOnce(absl::Milliseconds(85)), 1u) << "100 Mbit/s";
}

TEST_F(WorkerExpertsTest, ShipsWhatRowsChooseFirstAndTheRestInTime) {
  StartWorker();
  ASSERT_OK_AND_ASSIGN(const auto ready, Load());
  EXPECT_LT(ready.fetched_bytes(), 3 * kMiB);
  EXPECT_EQ(ready.done_bytes(), ready.total_bytes());
  const proto::Heartbeat first =
      WaitFor([](const auto& now) { return now.weight_bytes_to_come() > 0; });
  EXPECT_EQ(std::count(first.weight_places().begin(), first.weight_places().end(), 'n'), 12)
      << first.weight_places();
  EXPECT_LE(first.weight_bytes_to_come(), kExpertsBytes);
  EXPECT_LE(first.memory_used_bytes(), kOffered);
  ASSERT_NO_FATAL_FAILURE(ExpectRightAnswers());
  WaitUntilAllIsHere();
  // All pieces came once, but for those that were on their way beside what a step asked for.
  const int sent = coordinator_.pieces_sent();
  ASSERT_OK(Load());
  ASSERT_NO_FATAL_FAILURE(ExpectRightAnswers());
  EXPECT_EQ(coordinator_.pieces_sent(), sent);

  // After a restart nobody is asked for anything.
  StartWorker();
  coordinator_.StallFetches(true);
  ASSERT_OK_AND_ASSIGN(const auto again, Load());
  EXPECT_EQ(again.fetched_bytes(), 0);
  ASSERT_NO_FATAL_FAILURE(ExpectRightAnswers());
  EXPECT_EQ(coordinator_.pieces_sent(), sent);
}

// What the coordinator goes by when a step takes long: weights that come for it.
TEST_F(WorkerExpertsTest, TellsWhichStepItIsAtAndWhetherWeightsComeForIt) {
  StartWorker();
  ASSERT_NO_FATAL_FAILURE(ExpectStandsStill());
  // What had been sent before may still come.
  int64_t before = -1;
  const proto::Heartbeat still = WaitFor([&](const auto& now) {
    return std::exchange(before, now.weight_bytes_brought()) == now.weight_bytes_brought();
  });
  EXPECT_EQ(still.step(), 1u);
  coordinator_.StallFetches(false);
  WaitFor([&](const auto& now) { return now.weight_bytes_brought() > before; });
  ASSERT_OK_AND_ASSIGN(const proto::StepResult result, driver_->NextResult());
  EXPECT_EQ(result.error_message(), "");
  WaitFor([](const auto& now) { return now.step() == 0; });
}

TEST_F(WorkerExpertsTest, WhatNobodyWaitsForIsNotToldAsWeightsForAStep) {
  StartWorker();
  ASSERT_OK(Load());
  const proto::Heartbeat all = WaitFor([](const auto& now) {
    return now.weight_bytes_to_come() == 0 && now.pinned_now_bytes() == now.pinned_weight_bytes();
  });
  EXPECT_GT(all.weight_bytes_brought(), 0);
  EXPECT_LT(all.weight_bytes_brought(), kExpertsBytes / 2);
}

TEST_F(WorkerExpertsTest, TheExpertsOfALayerAreAskedForInOneRequest) {
  StartWorker();
  ASSERT_OK(Load());
  ASSERT_OK(FirstStep());
  // What every token needs, a request for each layer, and perhaps one of what comes in time.
  EXPECT_LE(coordinator_.fetches(), 4);
  EXPECT_GE(coordinator_.fetches(), 3);
}

TEST_F(WorkerExpertsTest, WrongBytesEndTheStepAndTheNextTriesAgain) {
  StartWorker();
  ASSERT_OK(Load());
  coordinator_.DamagePieces(true);
  EXPECT_THAT(FirstStep(),
              StatusIs(absl::StatusCode::kDataLoss,
                       ::testing::AllOf(HasSubstr("tensor "), HasSubstr("model file changed"))));
  coordinator_.DamagePieces(false);
  ASSERT_OK(Load());
  ASSERT_NO_FATAL_FAILURE(ExpectRightAnswers());
  WaitUntilAllIsHere();
  StartWorker();
  ASSERT_OK(Load());
  ASSERT_NO_FATAL_FAILURE(ExpectRightAnswers());
}

TEST_F(WorkerExpertsTest, AStreamThatBreaksGoesOn) {
  StartWorker();
  ASSERT_OK(Load());
  coordinator_.CutFetchAfter(3);
  ASSERT_NO_FATAL_FAILURE(ExpectRightAnswers());
}

TEST_F(WorkerExpertsTest, ACoordinatorThatShipsNoMoreEndsTheStepWithItsReason) {
  StartWorker();
  ASSERT_OK(Load());
  coordinator_.CutFetchAfter(4, absl::NotFoundError("the coordinator is out of pieces"));
  EXPECT_THAT(FirstStep(), StatusIs(absl::StatusCode::kNotFound, HasSubstr("out of pieces")));
  ASSERT_OK(Load());
  ASSERT_NO_FATAL_FAILURE(ExpectRightAnswers());
}

TEST_F(WorkerExpertsTest, AnotherWorkerShipsThemAndTheCoordinatorWhatItDoesNot) {
  for (const bool damaged : {false, true}) {
    for (const bool lost : {false, true}) {
      SCOPED_TRACE(absl::StrCat(damaged, " ", lost));
      auto holder =
          std::make_unique<TestCoordinator>(TestCoordinator::Options{.model = &SmallMixture()});
      holder->DamagePieces(damaged);
      driver_ = nullptr;
      worker_ = nullptr;
      std::filesystem::remove_all(folder_);
      StartWorker();
      const int before = coordinator_.pieces_sent();
      ASSERT_OK(Load(holder->address()));
      EXPECT_GT(holder->pieces_sent(), 0);
      if (lost) holder = nullptr;
      ASSERT_NO_FATAL_FAILURE(ExpectRightAnswers());
      EXPECT_EQ(coordinator_.pieces_sent() > before, damaged || lost);
    }
  }
}

TEST_F(WorkerExpertsTest, UnloadingEndsAStepThatWaitsForExperts) {
  StartWorker();
  ASSERT_NO_FATAL_FAILURE(ExpectStandsStill());
  const absl::Time begin = absl::Now();
  ASSERT_OK(driver_->Unload(epoch_));
  ExpectSoon(begin);
  coordinator_.StallFetches(false);
  ASSERT_OK(Load());
  ASSERT_NO_FATAL_FAILURE(ExpectRightAnswers());
}

TEST_F(WorkerExpertsTest, ANewerPlanEndsAStepThatWaitsForExpertsAndKeepsTheShard) {
  StartWorker();
  ASSERT_NO_FATAL_FAILURE(ExpectStandsStill());
  const absl::Time begin = absl::Now();
  ASSERT_OK(Load());
  ExpectSoon(begin);
  coordinator_.StallFetches(false);
  ASSERT_NO_FATAL_FAILURE(ExpectRightAnswers());
  WaitUntilAllIsHere();
}

TEST_F(WorkerExpertsTest, LeavingEndsAStepThatWaitsForExperts) {
  StartWorker();
  ASSERT_NO_FATAL_FAILURE(ExpectStandsStill());
  const absl::Time begin = absl::Now();
  worker_ = nullptr;
  ExpectSoon(begin);
}

TEST_F(WorkerExpertsTest, WhatNobodyWaitsForComesWhenItsSourceIsBack) {
  StartWorker();
  ASSERT_OK(Load());
  ASSERT_NO_FATAL_FAILURE(ExpectRightAnswers());
  coordinator_.CutFetchAfter(2, absl::NotFoundError("not now"));
  WaitUntilAllIsHere();
}

}  // namespace
}  // namespace renga::worker

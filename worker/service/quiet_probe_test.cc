#include "worker/service/quiet_probe.h"

#include <gtest/gtest.h>

#include <atomic>
#include <utility>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"

namespace renga::worker {
namespace {

// A worker's clock, orders and device, all of them made up. The probe looks every millisecond of
// real time, which nothing here depends on: `Looks` counts how often it has.
class MadeUpWorker {
 public:
  QuietProbe::Options Options() {
    return {.clock =
                [this] {
                  absl::MutexLock lock(&mutex_);
                  return now_;
                },
            .orders =
                [this] {
                  absl::MutexLock lock(&mutex_);
                  ++looks_;
                  return orders_;
                },
            .measure = [this](const GiveWay& give_way) { return Measure(give_way); },
            .first = SpeedOf(10e9),
            .good_for = absl::Minutes(30),
            .idle_after = absl::Seconds(20),
            .doubt = absl::Minutes(2),
            .tick = absl::Milliseconds(1)};
  }
  static DeviceSpeed SpeedOf(double decode) {
    return {.kernels = {{base::DataType::kQ4_K, decode, 8 * decode}}};
  }

  void Pass(absl::Duration time) {
    absl::MutexLock lock(&mutex_);
    now_ += time;
  }
  void Order() {
    absl::MutexLock lock(&mutex_);
    ++orders_;
  }
  void SetNext(absl::StatusOr<DeviceSpeed> next, bool wait_for_order = false) {
    absl::MutexLock lock(&mutex_);
    next_ = std::move(next);
    wait_for_order_ = wait_for_order;
  }
  // Until the probe has looked at what is now, at least twice.
  void WaitForLooks() {
    absl::MutexLock lock(&mutex_);
    const int wanted = looks_ + 3;
    const auto enough = [&]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) { return looks_ >= wanted; };
    mutex_.Await(absl::Condition(&enough));
  }
  void WaitForMeasurements(int count) {
    absl::MutexLock lock(&mutex_);
    const auto enough = [&]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) { return ended_ >= count; };
    mutex_.Await(absl::Condition(&enough));
  }
  int begun() const {
    absl::MutexLock lock(&mutex_);
    return begun_;
  }

 private:
  absl::StatusOr<DeviceSpeed> Measure(const GiveWay& give_way) {
    bool wait = false;
    {
      absl::MutexLock lock(&mutex_);
      ++begun_;
      wait = wait_for_order_;
    }
    while (wait && !give_way()) continue;
    absl::MutexLock lock(&mutex_);
    ++ended_;
    if (wait) return absl::CancelledError("there is something to do");
    return next_;
  }

  mutable absl::Mutex mutex_;
  absl::Duration now_ ABSL_GUARDED_BY(mutex_);
  uint64_t orders_ ABSL_GUARDED_BY(mutex_) = 0;
  int looks_ ABSL_GUARDED_BY(mutex_) = 0;
  int begun_ ABSL_GUARDED_BY(mutex_) = 0;
  int ended_ ABSL_GUARDED_BY(mutex_) = 0;
  bool wait_for_order_ ABSL_GUARDED_BY(mutex_) = false;
  absl::StatusOr<DeviceSpeed> next_ ABSL_GUARDED_BY(mutex_) = SpeedOf(10e9);
};

TEST(QuietProbeTest, MeasuresRarelyAndOnlyAWorkerThatIsIdle) {
  MadeUpWorker worker;
  QuietProbe probe(worker.Options());
  worker.Pass(absl::Minutes(29));
  worker.WaitForLooks();
  EXPECT_EQ(worker.begun(), 0) << "half an hour is not over";
  for (int i = 0; i < 10; ++i) {
    worker.Order();
    worker.Pass(absl::Seconds(19));
    worker.WaitForLooks();
  }
  EXPECT_EQ(worker.begun(), 0) << "it was never idle for long";
  EXPECT_EQ(probe.Read().age, absl::Minutes(29) + 10 * absl::Seconds(19));
  worker.Pass(absl::Seconds(20));
  worker.WaitForMeasurements(1);
  worker.WaitForLooks();
  EXPECT_EQ(probe.Read().age, absl::ZeroDuration());
  worker.Pass(absl::Minutes(29));
  worker.WaitForLooks();
  EXPECT_EQ(worker.begun(), 1);
}

TEST(QuietProbeTest, WhatIsDoubtedIsMeasuredAgainSoonAndThenCounts) {
  MadeUpWorker worker;
  QuietProbe probe(worker.Options());
  worker.SetNext(MadeUpWorker::SpeedOf(6e9));
  worker.Pass(absl::Minutes(30));
  worker.WaitForMeasurements(1);
  worker.WaitForLooks();
  EXPECT_EQ(probe.Read().speed.kernels[0].decode_bytes_per_second, 10e9);
  EXPECT_FALSE(probe.Read().confirmed);
  worker.Pass(absl::Minutes(2));
  worker.WaitForMeasurements(2);
  worker.WaitForLooks();
  EXPECT_EQ(probe.Read().speed.kernels[0].decode_bytes_per_second, 6e9);
  EXPECT_TRUE(probe.Read().confirmed);
}

TEST(QuietProbeTest, AnOrderEndsAMeasurementWhichWaitsUntilTheWorkerIsIdleAgain) {
  MadeUpWorker worker;
  QuietProbe probe(worker.Options());
  worker.SetNext(MadeUpWorker::SpeedOf(6e9), /*wait_for_order=*/true);
  worker.Pass(absl::Minutes(30));
  while (worker.begun() == 0) worker.WaitForLooks();
  worker.Order();
  worker.WaitForMeasurements(1);
  worker.SetNext(MadeUpWorker::SpeedOf(10e9));
  worker.WaitForLooks();
  worker.Pass(absl::Seconds(19));
  worker.WaitForLooks();
  EXPECT_EQ(worker.begun(), 1);
  EXPECT_EQ(probe.Read().age, absl::Minutes(30) + absl::Seconds(19)) << "nothing was measured";
  worker.Pass(absl::Seconds(20));
  worker.WaitForMeasurements(2);
}

TEST(QuietProbeTest, WithoutRoomItIsTriedAgainAfterHalfAnHour) {
  MadeUpWorker worker;
  QuietProbe probe(worker.Options());
  worker.SetNext(absl::ResourceExhaustedError("the shard has all of it"));
  worker.Pass(absl::Minutes(30));
  worker.WaitForMeasurements(1);
  worker.WaitForLooks();
  worker.Pass(absl::Minutes(29));
  worker.WaitForLooks();
  EXPECT_EQ(worker.begun(), 1);
  worker.Pass(absl::Minutes(1));
  worker.WaitForMeasurements(2);
  EXPECT_EQ(probe.Read().speed.kernels[0].decode_bytes_per_second, 10e9);
}

TEST(QuietProbeTest, StopEndsWhatRuns) {
  MadeUpWorker worker;
  QuietProbe probe(worker.Options());
  worker.SetNext(MadeUpWorker::SpeedOf(6e9), /*wait_for_order=*/true);
  worker.Pass(absl::Minutes(30));
  while (worker.begun() == 0) worker.WaitForLooks();
  probe.Stop();
  EXPECT_EQ(probe.Read().speed.kernels[0].decode_bytes_per_second, 10e9);
}

}  // namespace
}  // namespace renga::worker

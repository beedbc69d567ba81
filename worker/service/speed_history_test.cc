#include "worker/service/speed_history.h"

#include <gtest/gtest.h>

namespace renga::worker {
namespace {

DeviceSpeed SpeedOf(double decode, double prefill = 50e9, double disk = 0) {
  return {.kernels = {{base::DataType::kQ4_K, decode, prefill}},
          .layer_us = 40,
          .copy_bytes_per_second = 5e9,
          .disk_bytes_per_second = disk};
}

TEST(SpeedHistoryTest, OneMeasurementAloneChangesNothingAndTwoDo) {
  SpeedHistory history(SpeedOf(10e9));
  EXPECT_EQ(history.settled().kernels[0].decode_bytes_per_second, 10e9);
  EXPECT_FALSE(history.InDoubt());
  history.Add(SpeedOf(5e9));
  EXPECT_EQ(history.settled().kernels[0].decode_bytes_per_second, 10e9);
  EXPECT_TRUE(history.InDoubt());
  EXPECT_FALSE(history.confirmed());
  history.Add(SpeedOf(5.2e9));
  EXPECT_EQ(history.settled().kernels[0].decode_bytes_per_second, 5.2e9);
  EXPECT_EQ(history.settled().kernels[0].prefill_bytes_per_second, 50e9);
  EXPECT_FALSE(history.InDoubt());
  EXPECT_TRUE(history.confirmed());
  history.Add(SpeedOf(10e9));
  EXPECT_EQ(history.settled().kernels[0].decode_bytes_per_second, 5.2e9);
  EXPECT_TRUE(history.InDoubt());
  history.Add(SpeedOf(9.9e9));
  EXPECT_EQ(history.settled().kernels[0].decode_bytes_per_second, 9.9e9) << "fast again";
}

TEST(SpeedHistoryTest, WhatWasMetOnceIsForgotten) {
  SpeedHistory history(SpeedOf(10e9));
  for (const double speed : {10.1e9, 3e9, 9.9e9}) history.Add(SpeedOf(speed));
  EXPECT_EQ(history.settled().kernels[0].decode_bytes_per_second, 9.9e9);
  EXPECT_FALSE(history.InDoubt());
}

TEST(SpeedHistoryTest, PromptsAndLayersAreDoubtedToo) {
  SpeedHistory history(SpeedOf(10e9));
  history.Add(SpeedOf(10e9, 30e9));
  EXPECT_TRUE(history.InDoubt());
  SpeedHistory other(SpeedOf(10e9));
  DeviceSpeed slow = SpeedOf(10e9);
  slow.layer_us = 60;
  other.Add(slow);
  EXPECT_TRUE(other.InDoubt());
  EXPECT_EQ(other.settled().layer_us, 40);
}

TEST(SpeedHistoryTest, WhatWasNotMeasuredHasNoSay) {
  SpeedHistory history(SpeedOf(10e9, 50e9, 2e8));
  DeviceSpeed more = SpeedOf(10e9);
  more.kernels.push_back({base::DataType::kF16, 8e9, 40e9});
  history.Add(more);
  EXPECT_EQ(history.settled().disk_bytes_per_second, 2e8);
  ASSERT_EQ(history.settled().kernels.size(), 2u);
  EXPECT_EQ(history.settled().kernels[1].decode_bytes_per_second, 8e9);
  for (int i = 0; i < 3; ++i) history.Add(SpeedOf(10e9));
  ASSERT_EQ(history.settled().kernels.size(), 2u)
      << "time ran out since, the format is still there";
  EXPECT_EQ(history.settled().kernels[0].type, base::DataType::kQ4_K);
  EXPECT_EQ(history.settled().kernels[1].prefill_bytes_per_second, 40e9);
}

}  // namespace
}  // namespace renga::worker

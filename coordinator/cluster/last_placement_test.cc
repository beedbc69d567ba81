#include "coordinator/cluster/last_placement.h"

#include <string>
#include <vector>

#include "base/file.h"
#include "base/testing/status_matchers.h"
#include "base/testing/temp_folder.h"
#include "gtest/gtest.h"

namespace renga::cluster {
namespace {

using ::renga::testing::StatusIs;

Member MakeMember(const std::string& id, const std::string& name, double speed) {
  Member member;
  member.id = id;
  member.name = name;
  member.offer.weight_bytes_per_second = speed;
  return member;
}

LastPlacement TwoShards() {
  return {
      {.worker_id = "w-a",
       .worker_name = "ada",
       .spec = {.layers = {0, 3}, .slice = model::LayerSlice{{0, 4}, {0, 256}}, .head_rows = {}},
       .weight_bytes_per_second = 10e9,
       .disk_bytes_per_second = 2e8,
       .layer_us = 50,
       .kernels = {{base::DataType::kQ4_K, 9e9, 40e9}, {base::DataType::kF16, 8e9, 30e9}}},
      {.worker_id = "w-b",
       .worker_name = "bob",
       .spec = {.layers = {3, 5}, .head_rows = {0, 512}},
       .weight_bytes_per_second = 20e9}};
}

TEST(LastPlacementTest, AWorkerIsKnownByIdElseByTheNameOfOneThatIsGone) {
  const LastPlacement last = TwoShards();
  const std::vector<Member> members = {MakeMember("w-a", "renamed", 1), MakeMember("w-c", "bob", 1),
                                       MakeMember("w-d", "ada", 1)};
  ASSERT_NE(FindLastShard(last, members[0], members), nullptr);
  EXPECT_EQ(FindLastShard(last, members[0], members)->worker_id, "w-a");
  ASSERT_NE(FindLastShard(last, members[1], members), nullptr);
  EXPECT_EQ(FindLastShard(last, members[1], members)->worker_id, "w-b");
  EXPECT_EQ(FindLastShard(last, members[2], members), nullptr) << "w-a itself is here";
}

TEST(LastPlacementTest, MeasurementsSettleWithinAFactorOfEight) {
  const std::vector<Member> settled = WithSettledSpeeds(
      {MakeMember("w-a", "ada", 79e9), MakeMember("w-b", "bob", 2e9), MakeMember("w-c", "new", 5)},
      TwoShards());
  EXPECT_EQ(settled[0].offer.weight_bytes_per_second, 10e9);
  ASSERT_EQ(settled[0].offer.kernels.size(), 2u);
  EXPECT_EQ(settled[0].offer.kernels[0].decode_bytes_per_second, 9e9);
  EXPECT_EQ(settled[0].offer.layer_us, 50) << "one noisy figure would move layers as well";
  EXPECT_EQ(settled[0].offer.disk_bytes_per_second, 2e8);
  EXPECT_EQ(settled[1].offer.weight_bytes_per_second, 2e9) << "less than an eighth: it has changed";
  EXPECT_EQ(settled[2].offer.weight_bytes_per_second, 5);
}

Member Measured(const std::string& id, double decode, bool confirmed) {
  Member member = MakeMember(id, "", decode);
  member.alive = true;
  member.last_heartbeat.speed = MeasuredSpeed{.kernels = {{base::DataType::kQ4_K, decode, 40e9}},
                                              .disk_bytes_per_second = 1e8,
                                              .layer_us = 55,
                                              .confirmed = confirmed};
  return member;
}

TEST(LastPlacementTest, WhatIsConfirmedWhileWorkersRunIsPlannedWith) {
  LastPlacement last = TwoShards();
  last[0].disk_bytes_per_second = 1e8;
  EXPECT_FALSE(TakeConfirmedSpeeds({Measured("w-a", 5e9, false)}, last)) << "once is an accident";
  EXPECT_FALSE(TakeConfirmedSpeeds({Measured("w-a", 9.5e9, true)}, last)) << "as good as the same";
  EXPECT_FALSE(TakeConfirmedSpeeds({Measured("w-c", 5e9, true)}, last)) << "it held nothing";
  EXPECT_EQ(last[0].kernels[0].decode_bytes_per_second, 9e9);
  const std::vector<Member> slow = {Measured("w-a", 5e9, true)};
  EXPECT_TRUE(TakeConfirmedSpeeds(slow, last));
  EXPECT_FALSE(TakeConfirmedSpeeds(slow, last)) << "known by now";
  EXPECT_EQ(last[0].layer_us, 55);
  EXPECT_EQ(last[0].spec, TwoShards()[0].spec);
  EXPECT_EQ(last[1].weight_bytes_per_second, 20e9);
  // The worker starts anew and its first measurement says what it said before: that one may have
  // met a processor that was still cool.
  const std::vector<Member> settled = WithSettledSpeeds({MakeMember("w-a", "ada", 10e9)}, last);
  EXPECT_EQ(settled[0].offer.weight_bytes_per_second, 5e9);
  EXPECT_EQ(settled[0].offer.kernels[0].decode_bytes_per_second, 5e9);
}

TEST(LastPlacementTest, ASlowerDiskOrPromptIsANewSpeedToo) {
  LastPlacement last = TwoShards();
  Member member = Measured("w-a", 9.5e9, true);
  EXPECT_TRUE(TakeConfirmedSpeeds({member}, last)) << "half the disk's";
  EXPECT_EQ(last[0].disk_bytes_per_second, 1e8);
  EXPECT_FALSE(TakeConfirmedSpeeds({member}, last));
  member.last_heartbeat.speed->kernels[0].prefill_bytes_per_second = 20e9;
  EXPECT_TRUE(TakeConfirmedSpeeds({member}, last));
  member.alive = false;
  member.last_heartbeat.speed->kernels[0].prefill_bytes_per_second = 80e9;
  EXPECT_FALSE(TakeConfirmedSpeeds({member}, last)) << "it is gone";
}

TEST(LastPlacementTest, IsKeptInAFile) {
  const std::string path = testing::NewTempFolder() + "/last_placement.json";
  ASSERT_OK(WriteLastPlacement(path, TwoShards()));
  ASSERT_OK_AND_ASSIGN(const LastPlacement read, ReadLastPlacement(path));
  ASSERT_EQ(read.size(), 2u);
  EXPECT_EQ(read[1].worker_id, "w-b");
  EXPECT_EQ(read[1].worker_name, "bob");
  for (size_t i = 0; i < 2; ++i) EXPECT_EQ(read[i].spec, TwoShards()[i].spec);
  ASSERT_EQ(read[0].kernels.size(), 2u);
  EXPECT_EQ(read[0].kernels[1].type, base::DataType::kF16);
  EXPECT_EQ(read[0].kernels[1].prefill_bytes_per_second, 30e9);
  EXPECT_EQ(read[1].weight_bytes_per_second, 20e9);
  EXPECT_EQ(read[0].layer_us, 50);
  EXPECT_EQ(read[0].disk_bytes_per_second, 2e8);
}

TEST(LastPlacementTest, DamageIsAnErrorAndNothingElse) {
  const std::string path = testing::NewTempFolder() + "/damaged_placement.json";
  for (
      const std::string text :
      {"", "{", "7", "[7]", "[{}]",
       R"([{"id":1,"name":"a","layers":[0,1],"head_rows":[0,0],)"
       R"("weight_bytes_per_second":1}])",
       R"([{"id":"1","name":"a","layers":[3,1],"head_rows":[0,0],"weight_bytes_per_second":1}])"}) {
    ASSERT_OK(base::WriteFileAtomically(path, text));
    EXPECT_THAT(ReadLastPlacement(path), StatusIs(absl::StatusCode::kDataLoss)) << text;
  }
  EXPECT_THAT(ReadLastPlacement(path + ".none"), StatusIs(absl::StatusCode::kNotFound));
}

}  // namespace
}  // namespace renga::cluster

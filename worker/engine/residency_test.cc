// Shards that are larger than their budget give the bits of a resident one, and go on after
// whatever happens to their files.
#include <memory>
#include <string>
#include <vector>

#include "worker/engine/residency_fixture.h"

namespace renga::engine {
namespace {

using ::renga::testing::StatusIs;
using ::testing::HasSubstr;

TEST_F(ResidencyTest, SameBitsWhateverIsInMemory) {
  for (const int percent : {100, 75, 50, 30}) {
    SCOPED_TRACE(percent);
    ASSERT_OK_AND_ASSIGN(auto shard, Load(percent));
    EXPECT_LE(shard->memory_bytes(), budget_->total_bytes());
    const ResidencyReport report = shard->residency();
    EXPECT_EQ(report.streamed > 0, percent < 100);
    EXPECT_LE(report.pinned, layer_bytes_ * percent / 100 + 64 * 1024);
    ASSERT_NO_FATAL_FAILURE(ExpectSameBits(*shard));
    ASSERT_NO_FATAL_FAILURE(ExpectSameBits(*shard));
    EXPECT_EQ(shard->residency().pinned_now, report.pinned);
    const std::string places = shard->residency().places;
    EXPECT_EQ(places.size() % static_cast<size_t>(model_.config.n_layers), 0u);
    EXPECT_EQ(places.find_first_not_of("ms"), std::string::npos) << places;
    EXPECT_EQ(places.find(kStreamed) != std::string::npos, percent < 100);
    // Twelve steps and what was read ahead of the thirteenth; only what is streamed.
    if (percent < 100) {
      EXPECT_GE(disk_->streamed_bytes, 12 * (report.streamed * 98 / 100));
      EXPECT_LE(disk_->streamed_bytes, 13 * report.streamed);
    }
    disk_->streamed_bytes = 0;
  }
}

TEST_F(ResidencyTest, PacksOnceOneMatrixAfterTheOther) {
  int64_t done = 0;
  int64_t total = 0;
  const auto progress = [&](int64_t d, int64_t t) {
    done = d;
    total = t;
    return true;
  };
  ASSERT_OK_AND_ASSIGN(auto shard, Load(30, progress));
  EXPECT_EQ(done, total);
  // What is streamed was kept; what is pinned is packed when it is needed, and kept by the caller.
  EXPECT_GE(disk_->kept_bytes, shard->residency().streamed * 98 / 100);
  EXPECT_LE(disk_->kept_bytes, shard->residency().streamed);
  EXPECT_EQ(shard->residency().pinned_now, 0);
  EXPECT_EQ(shard->residency().places.find_first_not_of("ps"), std::string::npos);
  ASSERT_OK_AND_ASSIGN(bool more, shard->LoadMore());
  EXPECT_TRUE(more);
  EXPECT_GT(shard->residency().pinned_now, 0);
  EXPECT_LT(shard->residency().pinned_now, shard->residency().pinned);
  while (more) {
    ASSERT_OK_AND_ASSIGN(more, shard->LoadMore());
  }
  EXPECT_EQ(shard->residency().pinned_now, shard->residency().pinned);
  for (const HeldMatrix& matrix : shard->newly_packed()) {
    ASSERT_OK(disk_->KeepPacked(matrix.key, matrix.bytes));
  }
  EXPECT_EQ(disk_->files(), 7 * static_cast<size_t>(model_.config.n_layers) + 1);
  ASSERT_NO_FATAL_FAILURE(ExpectSameBits(*shard));
  shard.reset();

  const int64_t read = disk_->source_bytes;
  ASSERT_OK_AND_ASSIGN(shard, Load(50));
  ASSERT_NO_FATAL_FAILURE(ExpectSameBits(*shard));
  // Norms, and the head, which is not a lazy one's.
  EXPECT_LT(disk_->source_bytes - read, layer_bytes_ / 4);
}

TEST_F(ResidencyTest, WhatWillBeHeldIsReadAheadOfTheReader) {
  for (const int percent : {100, 50}) {
    ASSERT_OK_AND_ASSIGN(auto shard, Load(percent));
    bool more = true;
    while (more) {
      ASSERT_OK_AND_ASSIGN(more, shard->LoadMore());
    }
    for (const HeldMatrix& matrix : shard->newly_packed()) {
      ASSERT_OK(disk_->KeepPacked(matrix.key, matrix.bytes));
    }
    shard.reset();
    // More than the matrices of one bundle. The files themselves expect to be read ahead once at
    // most, and never when they are streamed.
    disk_->prefetched = 0;
    disk_->hold_after_prefetched = 8;
    ASSERT_OK_AND_ASSIGN(shard, Load(percent));
    ASSERT_NO_FATAL_FAILURE(ExpectSameBits(*shard));
    EXPECT_GE(disk_->prefetched, 8);
    disk_->hold_after_prefetched = 0;
  }
}

TEST_F(ResidencyTest, AnswersBeforeAllIsThere) {
  ASSERT_OK_AND_ASSIGN(auto shard, Load(100));
  // Norms and the head.
  EXPECT_LT(disk_->source_bytes, whole_bytes_ / 4);
  EXPECT_EQ(shard->residency().pinned_now, 0);
  ASSERT_NO_FATAL_FAILURE(ExpectSameBits(*shard));
  EXPECT_EQ(shard->residency().pinned_now, shard->residency().pinned);
  ASSERT_OK_AND_ASSIGN(const bool more, shard->LoadMore());
  EXPECT_FALSE(more);
  for (const HeldMatrix& matrix : shard->newly_packed()) {
    ASSERT_OK(disk_->KeepPacked(matrix.key, matrix.bytes));
  }
  // From a slow disk, one bundle after the other.
  disk_->delay = absl::Milliseconds(5);
  ASSERT_OK_AND_ASSIGN(shard, Load(100));
  EXPECT_LT(shard->residency().pinned_now, shard->residency().pinned);
  EXPECT_EQ(shard->residency().places.back(), kComing);
  ASSERT_NO_FATAL_FAILURE(ExpectSameBits(*shard));
}

TEST_F(ResidencyTest, AReadThatFailsOnceIsTriedAgain) {
  for (const int n : {0, 3, 20}) {
    ASSERT_OK_AND_ASSIGN(auto shard, Load(50));
    const int64_t kept = disk_->kept_bytes;
    disk_->FailReads(n, 2, absl::UnavailableError("the disk stumbles"));
    ASSERT_NO_FATAL_FAILURE(ExpectSameBits(*shard));
    EXPECT_EQ(disk_->kept_bytes, kept);
  }
}

TEST_F(ResidencyTest, DamagedAndCutFilesArePackedAgain) {
  for (const absl::StatusCode code :
       {absl::StatusCode::kDataLoss, absl::StatusCode::kOutOfRange, absl::StatusCode::kNotFound}) {
    for (const int n : {0, 5, 30}) {
      ASSERT_OK_AND_ASSIGN(auto shard, Load(50));
      const int64_t kept = disk_->kept_bytes;
      disk_->FailReads(n, 1, absl::Status(code, "injected"));
      ASSERT_NO_FATAL_FAILURE(ExpectSameBits(*shard));
      EXPECT_LE(shard->residency().pinned_now, shard->residency().pinned);
      if (shard->residency().pinned_now == 0) {
        EXPECT_GT(disk_->kept_bytes, kept);
      }
    }
  }
}

TEST_F(ResidencyTest, EveryFileDamaged) {
  ASSERT_OK_AND_ASSIGN(auto shard, Load(30));
  ASSERT_NO_FATAL_FAILURE(ExpectSameBits(*shard));
  disk_->DamageEverything();
  ASSERT_NO_FATAL_FAILURE(ExpectSameBits(*shard));
}

TEST_F(ResidencyTest, EndsTheStepWhenNothingHelpsAndGoesOnLater) {
  ASSERT_OK_AND_ASSIGN(auto shard, Load(50));
  ASSERT_NO_FATAL_FAILURE(ExpectGoesOnAfterFaults(*shard));
  ASSERT_NO_FATAL_FAILURE(ExpectGoesOnAfterADeadDisk(*shard));
}

TEST_F(ResidencyTest, RefusesWhatCannotWork) {
  EXPECT_THAT(Load(3), StatusIs(absl::StatusCode::kResourceExhausted, HasSubstr("a layer")));
  EXPECT_EQ(budget_->used_bytes(), 0);
  disk_->disk_failure = absl::ResourceExhaustedError("the disk is full");
  EXPECT_THAT(Load(50), StatusIs(absl::StatusCode::kResourceExhausted, HasSubstr("place on disk")));
  EXPECT_EQ(budget_->used_bytes(), 0);
  ASSERT_OK_AND_ASSIGN(backend_, kernels::CreateBackend({.device = "reference"}));
  EXPECT_THAT(Load(50), StatusIs(absl::StatusCode::kUnimplemented, HasSubstr("--lazy")));
  ASSERT_OK_AND_ASSIGN(const auto shard, Load(100));
  EXPECT_EQ(shard->residency().pinned, 0) << "it is there before it answers";
}

TEST_F(ResidencyTest, CanBeCancelledWhilePacking) {
  EXPECT_THAT(Load(50, [](int64_t, int64_t) { return false; }),
              StatusIs(absl::StatusCode::kCancelled));
}

}  // namespace
}  // namespace renga::engine

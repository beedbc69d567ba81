// How a worker comes by its shard: fetched, resumed, taken from its disk, verified.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/synchronization/mutex.h"
#include "base/testing/status_matchers.h"
#include "base/testing/temp_folder.h"
#include "transport/dialer.h"
#include "worker/service/testing/test_setup.h"
#include "worker/service/testing/worker_driver.h"
#include "worker/service/testing/worker_fixture.h"

namespace renga::worker {
namespace {

using ::renga::testing::StatusIs;
using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::Not;
using testing::SmallModel;
using testing::TestCoordinator;
using testing::WorkerDriver;

class WorkerShippingTest : public testing::WorkerTest {
 protected:
  // A new worker on the folder's cache loads `request` and is gone again.
  absl::StatusOr<proto::LoadProgress> LoadOnce(const proto::LoadRequest& request) {
    WorkerOptions options = Options();
    options.cache_directory = cache_;
    options.local_model_path = local_model_;
    options.on_event = [this](const std::string& line) {
      absl::MutexLock lock(&mutex_);
      events_ += line + "\n";
    };
    // Each reads and checks pieces of its own, of what is there.
    if (!local_model_.empty()) options.device.threads = 2;
    const auto worker = Start(options);
    return WorkerDriver(dialer_.get(), *worker).Load(request);
  }
  std::vector<std::filesystem::path> CachedFiles() const {
    std::vector<std::filesystem::path> files;
    for (const auto& entry : std::filesystem::recursive_directory_iterator(cache_)) {
      if (entry.is_regular_file()) files.push_back(entry.path());
    }
    std::sort(files.begin(), files.end());
    return files;
  }
  static void Flip(const std::filesystem::path& path, int64_t offset) {
    std::fstream file(path, std::ios::in | std::ios::out | std::ios::binary);
    file.seekg(offset);
    const int byte = file.get();
    file.seekp(offset);
    file.put(static_cast<char>(byte ^ 0x10));
    ASSERT_TRUE(file.good());
  }

  std::string cache_ = renga::testing::NewTempFolder();
  std::string Events() {
    absl::MutexLock lock(&mutex_);
    return events_;
  }

  std::string local_model_;

 private:
  absl::Mutex mutex_;
  std::string events_ ABSL_GUARDED_BY(mutex_);
};

TEST_F(WorkerShippingTest, ARestartShipsNothing) {
  ASSERT_OK_AND_ASSIGN(const proto::LoadProgress first, LoadOnce(OrderWhole(1)));
  EXPECT_GT(first.total_bytes(), 0);
  EXPECT_EQ(first.fetched_bytes(), first.total_bytes());
  EXPECT_EQ(first.cached_bytes(), 0);
  EXPECT_GT(first.memory_bytes(), first.total_bytes());
  const int pieces = coordinator_.pieces_sent();

  ASSERT_OK_AND_ASSIGN(const proto::LoadProgress again, LoadOnce(OrderWhole(2)));
  EXPECT_EQ(again.fetched_bytes(), 0);
  EXPECT_EQ(again.cached_bytes(), first.total_bytes());
  EXPECT_EQ(coordinator_.pieces_sent(), pieces);
  EXPECT_EQ(coordinator_.fetches(), 1) << "one stream brings a whole shard";
}

TEST_F(WorkerShippingTest, AnotherCutFetchesOnlyWhatIsNew) {
  ASSERT_OK_AND_ASSIGN(const auto half, LoadOnce(Order(1, {.layers = {0, 2}, .head_rows = {}})));
  ASSERT_OK_AND_ASSIGN(const auto whole, LoadOnce(OrderWhole(2)));
  EXPECT_EQ(whole.cached_bytes(), half.total_bytes());
  EXPECT_EQ(whole.fetched_bytes(), whole.total_bytes() - half.total_bytes());
}

TEST_F(WorkerShippingTest, AStreamThatBreaksGoesOnWhereItBroke) {
  ASSERT_OK(LoadOnce(OrderWhole(1)));
  const int pieces = coordinator_.pieces_sent();
  cache_ = renga::testing::NewTempFolder();
  coordinator_.CutFetchAfter(7);
  ASSERT_OK(LoadOnce(OrderWhole(1)));
  EXPECT_EQ(coordinator_.pieces_sent(), 2 * pieces) << "no piece came twice";
  EXPECT_EQ(coordinator_.fetches(), 3);
}

TEST_F(WorkerShippingTest, AWorkerThatEndsInMidShippingResumes) {
  coordinator_.CutFetchAfter(7, absl::NotFoundError("the coordinator is out of pieces"));
  EXPECT_THAT(LoadOnce(OrderWhole(1)),
              StatusIs(absl::StatusCode::kNotFound, HasSubstr("out of pieces")));
  EXPECT_EQ(coordinator_.pieces_sent(), 7);
  ASSERT_OK_AND_ASSIGN(const proto::LoadProgress progress, LoadOnce(OrderWhole(2)));
  EXPECT_GT(progress.cached_bytes(), 0);
  EXPECT_EQ(progress.fetched_bytes() + progress.cached_bytes(), progress.total_bytes());
  const int pieces = coordinator_.pieces_sent();
  cache_.clear();
  ASSERT_OK(LoadOnce(OrderWhole(3)));
  EXPECT_EQ(coordinator_.pieces_sent(), 2 * pieces) << "no piece came twice";
}

TEST_F(WorkerShippingTest, DamageOnDiskIsNoticedAndRepaired) {
  ASSERT_OK_AND_ASSIGN(const auto whole, LoadOnce(OrderWhole(1)));
  const auto files = CachedFiles();
  const auto largest = *std::max_element(files.begin(), files.end(), [](auto& a, auto& b) {
    return std::filesystem::file_size(a) < std::filesystem::file_size(b);
  });
  ASSERT_GT(std::filesystem::file_size(largest), static_cast<uint64_t>(transport::kPieceBytes));
  Flip(largest, transport::kPieceBytes / 2);
  ASSERT_OK_AND_ASSIGN(const auto repaired, LoadOnce(OrderWhole(2)));
  EXPECT_EQ(repaired.fetched_bytes(), transport::kPieceBytes);
  EXPECT_EQ(repaired.cached_bytes(), whole.total_bytes() - transport::kPieceBytes);
  ASSERT_OK_AND_ASSIGN(const auto again, LoadOnce(OrderWhole(3)));
  EXPECT_EQ(again.fetched_bytes(), 0);
}

TEST_F(WorkerShippingTest, TornAndMissingFilesAreFetchedAgain) {
  ASSERT_OK_AND_ASSIGN(const auto whole, LoadOnce(OrderWhole(1)));
  const auto files = CachedFiles();
  std::filesystem::resize_file(files[0], 10);
  std::filesystem::remove(files[1]);
  ASSERT_OK_AND_ASSIGN(const auto repaired, LoadOnce(OrderWhole(2)));
  EXPECT_GT(repaired.fetched_bytes(), 0);
  EXPECT_EQ(repaired.fetched_bytes() + repaired.cached_bytes(), whole.total_bytes());
  ASSERT_OK_AND_ASSIGN(const auto again, LoadOnce(OrderWhole(3)));
  EXPECT_EQ(again.fetched_bytes(), 0);
}

TEST_F(WorkerShippingTest, ALocalCopySavesTheNetwork) {
  local_model_ = SmallModel().file().part_paths().front();
  ASSERT_OK_AND_ASSIGN(const auto progress, LoadOnce(OrderWhole(1)));
  EXPECT_EQ(progress.fetched_bytes(), 0);
  EXPECT_EQ(coordinator_.fetches(), 0);
  EXPECT_THAT(Events(), AllOf(HasSubstr("holding"), Not(HasSubstr("--model"))));
}

TEST_F(WorkerShippingTest, ALocalCopyThatDiffersIsNotTrusted) {
  local_model_ = renga::testing::NewTempFolder() + "/copy.gguf";
  std::filesystem::copy_file(SmallModel().file().part_paths().front(), local_model_);
  const model::GgufTensor* tensor = SmallModel().file().FindTensor("blk.1.ffn_up.weight");
  ASSERT_NE(tensor, nullptr);
  Flip(local_model_, tensor->file_offset + 5);
  ASSERT_OK_AND_ASSIGN(const auto progress, LoadOnce(OrderWhole(1)));
  // The piece that differs, and what is read of the tensor after a thread has noticed.
  EXPECT_GE(progress.fetched_bytes(), int64_t{1} << 20);
  EXPECT_LE(progress.fetched_bytes(), tensor->byte_size);
  EXPECT_EQ(progress.cached_bytes(), progress.total_bytes() - progress.fetched_bytes());
  EXPECT_THAT(Events(), HasSubstr("the file of --model lacks some of these weights, or has other"));
}

TEST_F(WorkerShippingTest, PiecesThatAreNotTheManifestsAreRefused) {
  coordinator_.DamagePieces(true);
  EXPECT_THAT(LoadOnce(OrderWhole(1)),
              StatusIs(absl::StatusCode::kDataLoss,
                       AllOf(HasSubstr("tensor "), HasSubstr("model file changed"))));
  coordinator_.DamagePieces(false);
  ASSERT_OK_AND_ASSIGN(const auto progress, LoadOnce(OrderWhole(2)));
  EXPECT_EQ(progress.cached_bytes(), 0) << "nothing damaged was kept";
}

TEST_F(WorkerShippingTest, WhatExceedsTheOfferIsRefusedWithNumbers) {
  WorkerOptions options = Options();
  options.memory_bytes = 6 << 20;
  const auto worker = Start(options);
  WorkerDriver driver(dialer_.get(), *worker);
  EXPECT_THAT(driver.Load(OrderWhole(1)),
              StatusIs(absl::StatusCode::kResourceExhausted, HasSubstr("6.0 MiB")));
  EXPECT_EQ(coordinator_.fetches(), 0);
  // It goes on offering what it has.
  proto::LoadRequest small = Order(2, {.layers = {}, .head_rows = {0, 1000}});
  EXPECT_OK(driver.Load(small));
}

TEST_F(WorkerShippingTest, EpochsOnlyGrow) {
  const auto worker = Start(Options());
  WorkerDriver driver(dialer_.get(), *worker);
  ASSERT_OK(driver.Load(OrderWhole(7)));
  EXPECT_THAT(driver.Load(OrderWhole(7)),
              StatusIs(absl::StatusCode::kAborted, AllOf(HasSubstr("7"), HasSubstr("newer"))));
  EXPECT_THAT(driver.Load(OrderWhole(6)), StatusIs(absl::StatusCode::kAborted));
  EXPECT_OK(driver.Load(OrderWhole(8)));
}

TEST_F(WorkerShippingTest, UnloadFreesTheShardOfItsEpochOnly) {
  const auto worker = Start(Options());
  WorkerDriver driver(dialer_.get(), *worker);
  ASSERT_OK(driver.Load(OrderWhole(7)));
  const int pieces = coordinator_.pieces_sent();
  ASSERT_OK(driver.Unload(6));
  ASSERT_OK_AND_ASSIGN(const auto kept, driver.Load(OrderWhole(8)));
  EXPECT_EQ(coordinator_.pieces_sent(), pieces);
  ASSERT_OK(driver.Unload(8));
  proto::Heartbeat heartbeat;
  do {
    heartbeat = coordinator_.WaitForHeartbeat();
  } while (heartbeat.epoch() != 0);
  EXPECT_EQ(heartbeat.memory_used_bytes(), 0);
  driver.OpenResults(8);
  EXPECT_FALSE(driver.NextResult().ok());
}

TEST_F(WorkerShippingTest, BadOrdersLeaveTheWorkerAsItWas) {
  const auto worker = Start(Options());
  WorkerDriver driver(dialer_.get(), *worker);
  ASSERT_OK(driver.Load(OrderWhole(7)));
  proto::LoadRequest order = OrderWhole(8);
  order.mutable_manifest()->mutable_tensors(3)->set_byte_size(int64_t{1} << 40);
  EXPECT_THAT(driver.Load(order), StatusIs(absl::StatusCode::kInvalidArgument));
  EXPECT_THAT(driver.Load({}), StatusIs(absl::StatusCode::kInvalidArgument));
  // The plan of epoch 7 still runs.
  driver.OpenResults(7);
  ASSERT_OK(driver.SendStep(testing::MakeStep(7, 1, 0, 2), testing::MakeRows(2, 128, 1)));
  EXPECT_OK(driver.NextResult());
}

TEST_F(WorkerShippingTest, AHashThatLiesMakesTheLoadFail) {
  proto::LoadRequest order = OrderWhole(1);
  for (proto::TensorEntry& entry : *order.mutable_manifest()->mutable_tensors()) {
    if (entry.name() == "blk.2.ffn_up.weight") entry.mutable_piece_hashes()->front() ^= 1;
  }
  EXPECT_THAT(LoadOnce(order),
              StatusIs(absl::StatusCode::kDataLoss, HasSubstr("blk.2.ffn_up.weight")));
}

TEST_F(WorkerShippingTest, ATensorIndexThatLiesMakesTheLoadFail) {
  // Two tensors of one shape change places: sizes fit, contents don't.
  proto::LoadRequest order = OrderWhole(1);
  proto::TensorEntry* a = nullptr;
  proto::TensorEntry* b = nullptr;
  for (proto::TensorEntry& entry : *order.mutable_manifest()->mutable_tensors()) {
    if (entry.name() == "blk.0.ffn_up.weight") a = &entry;
    if (entry.name() == "blk.1.ffn_up.weight") b = &entry;
  }
  ASSERT_TRUE(a != nullptr && b != nullptr);
  const uint32_t index = a->index();
  a->set_index(b->index());
  b->set_index(index);
  EXPECT_THAT(LoadOnce(order), StatusIs(absl::StatusCode::kDataLoss));
}

TEST_F(WorkerShippingTest, ANewerLoadEndsTheOneUnderWay) {
  const auto worker = Start(Options());
  WorkerDriver first(dialer_.get(), *worker);
  WorkerDriver second(dialer_.get(), *worker);
  coordinator_.StallFetchAfter(3);
  absl::Status ended;
  std::thread thread([&] { ended = first.Load(OrderWhole(1)).status(); });
  while (coordinator_.pieces_sent() < 3) std::this_thread::yield();
  EXPECT_OK(second.Load(OrderWhole(2)));
  thread.join();
  EXPECT_THAT(ended, StatusIs(absl::StatusCode::kCancelled));
}

// Says that the one at `address` has all of the model.
void SetHolder(const std::string& address, proto::LoadRequest& request) {
  proto::PieceHolder& holder = *request.add_piece_holders();
  holder.set_address(address);
  holder.set_worker_id("holder");
  for (const proto::TensorEntry& tensor : request.manifest().tensors()) {
    holder.add_tensors(tensor.index());
  }
}

TEST_F(WorkerShippingTest, PiecesComeFromAnotherWorkerThatKeepsThem) {
  WorkerOptions options = Options();
  options.cache_directory = renga::testing::NewTempFolder();
  const auto holder = Start(options);
  ASSERT_OK_AND_ASSIGN(
      const auto half,
      WorkerDriver(dialer_.get(), *holder).Load(Order(1, {.layers = {0, 2}, .head_rows = {}})));
  const int before = coordinator_.pieces_sent();

  proto::LoadRequest request = OrderWhole(2);
  SetHolder(absl::StrCat("127.0.0.1:", holder->port()), request);
  ASSERT_OK_AND_ASSIGN(const auto whole, LoadOnce(request));
  EXPECT_EQ(whole.fetched_bytes(), whole.total_bytes());
  const int with_holder = coordinator_.pieces_sent() - before;
  cache_ = renga::testing::NewTempFolder();
  ASSERT_OK(LoadOnce(OrderWhole(3)));
  const int without = coordinator_.pieces_sent() - before - with_holder;
  EXPECT_EQ(with_holder, without - before) << "only what the holder does not keep";
  EXPECT_GT(half.fetched_bytes(), 0);
}

TEST_F(WorkerShippingTest, AHolderOfWrongPiecesOrNoneCostsNothingButTime) {
  ASSERT_OK_AND_ASSIGN(const auto whole, LoadOnce(OrderWhole(1)));
  const int all = coordinator_.pieces_sent();
  const auto load = [&](const std::string& holder) {
    cache_ = renga::testing::NewTempFolder();
    proto::LoadRequest request = OrderWhole(2);
    SetHolder(holder, request);
    const int before = coordinator_.pieces_sent();
    const auto progress = LoadOnce(request);
    EXPECT_OK(progress);
    EXPECT_EQ(progress.ok() ? progress->fetched_bytes() : -1, whole.total_bytes());
    return coordinator_.pieces_sent() - before;
  };
  TestCoordinator other({.model = &SmallModel()});
  EXPECT_EQ(load(other.address()), 0);
  other.CutFetchAfter(5);
  EXPECT_EQ(load(other.address()), all - 5);
  other.DamagePieces(true);
  EXPECT_EQ(load(other.address()), all);
  EXPECT_EQ(load("127.0.0.1:1"), all) << "nobody is there";
}

}  // namespace
}  // namespace renga::worker

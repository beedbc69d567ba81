// A worker whose shard is larger than its offer: it reads the rest from its disk, answers the same,
// and goes on after its files were damaged.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "absl/time/clock.h"
#include "base/file.h"
#include "base/testing/status_matchers.h"
#include "base/testing/temp_folder.h"
#include "transport/wire.h"
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
using testing::SmallModel;
using testing::WorkerDriver;

// Of layers, each in F32: 4.1 MiB.
constexpr int64_t kTooLittle = 9 * kMiB;

class WorkerLazyTest : public testing::WorkerTest {
 protected:
  // Starts a worker that offers this much, with the folder's caches; the load it is given.
  absl::StatusOr<proto::LoadProgress> StartWith(int64_t memory_bytes) {
    driver_ = nullptr;
    worker_ = nullptr;
    WorkerOptions options = Options();
    options.cache_directory = folder_;
    options.packed_directory = keeps_packed_ ? folder_ : "";
    options.memory_bytes = memory_bytes;
    worker_ = Start(options);
    driver_ = std::make_unique<WorkerDriver>(dialer_.get(), *worker_);
    return Load();
  }
  absl::StatusOr<proto::LoadProgress> Load() {
    proto::LoadRequest request = OrderWhole(++epoch_);
    request.set_load_lazily(true);
    const auto progress = driver_->Load(request);
    if (progress.ok()) driver_->OpenResults(epoch_);
    return progress;
  }
  static std::vector<model::Step> Steps(uint64_t epoch) {
    return {MakeStep(epoch, 1, 0, 20), MakeStep(epoch, 2, 20, 1), MakeStep(epoch, 3, 21, 1)};
  }
  static std::vector<float> RowsOf(const model::Step& step) {
    return MakeRows(step.token_count(), 128, static_cast<uint32_t>(step.number));
  }
  void ExpectRightAnswers() {
    static const auto* const kAnswers = new std::vector<std::vector<model::HeadRow>>(
        testing::ReferenceAnswers(SmallModel(), Steps(1)));
    const std::vector<model::Step> steps = Steps(epoch_);
    for (size_t i = 0; i < steps.size(); ++i) {
      ASSERT_OK(driver_->SendStep(steps[i], RowsOf(steps[i])));
      ASSERT_OK_AND_ASSIGN(const proto::StepResult result, driver_->NextResult());
      ASSERT_EQ(result.error_message(), "");
      EXPECT_TRUE(testing::LogitsOf(result, 5000) == testing::LogitsOf((*kAnswers)[i]));
    }
  }
  // Packed matrices of layers.
  std::vector<std::filesystem::path> PackedFiles() const {
    std::vector<std::filesystem::path> files;
    std::error_code error;  // there is no folder at first, and files are renamed meanwhile
    for (std::filesystem::recursive_directory_iterator entry(folder_ + "/packed", error), end;
         !error && entry != end; entry.increment(error)) {
      if (entry->path().filename().string().find_first_not_of("0123456789-") == std::string::npos &&
          entry->path().filename().string().find("-0-5000-") == std::string::npos &&
          entry->is_regular_file(error)) {
        files.push_back(entry->path());
      }
    }
    return files;
  }
  // A heartbeat of a worker that has all the weights it keeps in memory: it may be sent while the
  // first of them are read, and after the answer that they were read for.
  proto::Heartbeat WaitUntilPinned() {
    while (true) {
      const proto::Heartbeat heartbeat = coordinator_.WaitForHeartbeat();
      if (heartbeat.pinned_now_bytes() > 0 &&
          heartbeat.pinned_now_bytes() == heartbeat.pinned_weight_bytes()) {
        return heartbeat;
      }
    }
  }
  // What the whole shard takes.
  int64_t WholeBytes() {
    const auto progress = StartWith(256 * kMiB);
    EXPECT_OK(progress);
    if (!progress.ok()) return 0;
    // Whatever is not needed yet is loaded, and kept on disk.
    while (PackedFiles().size() < 4 * 7) absl::SleepFor(absl::Milliseconds(5));
    driver_ = nullptr;
    worker_ = nullptr;
    return progress->memory_bytes();
  }

  const std::string folder_ = renga::testing::NewTempFolder();
  bool keeps_packed_ = true;
  uint64_t epoch_ = 0;
  std::unique_ptr<WorkerServer> worker_;
  std::unique_ptr<WorkerDriver> driver_;
};

TEST_F(WorkerLazyTest, AnswersBeforeItsWeightsAreThere) {
  ASSERT_OK(StartWith(256 * kMiB));
  ExpectRightAnswers();
  EXPECT_EQ(events_.lines().size(), 2u);  // joined, holding
  const proto::Heartbeat heartbeat = WaitUntilPinned();
  EXPECT_EQ(heartbeat.streamed_weight_bytes(), 0);
}

TEST_F(WorkerLazyTest, ReadsFromDiskWhatDoesNotFit) {
  const int64_t whole = WholeBytes();
  for (int start = 0; start < 2; ++start) {
    ASSERT_OK_AND_ASSIGN(const auto progress, StartWith(whole - kTooLittle));
    EXPECT_LE(progress.memory_bytes(), whole - kTooLittle);
    EXPECT_EQ(progress.fetched_bytes(), 0);
    ExpectRightAnswers();
    // Another plan for the same shard.
    ASSERT_OK(Load());
    ExpectRightAnswers();
    const proto::Heartbeat heartbeat = WaitUntilPinned();
    EXPECT_GE(heartbeat.streamed_weight_bytes(), kTooLittle);
    EXPECT_LE(heartbeat.memory_used_bytes(), whole - kTooLittle);
  }
}

TEST_F(WorkerLazyTest, PacksWhatDoesNotFitBeforeItAnswers) {
  const int64_t whole = WholeBytes();
  std::filesystem::remove_all(folder_ + "/packed");
  ASSERT_OK(StartWith(whole - kTooLittle));
  EXPECT_FALSE(PackedFiles().empty());
  ExpectRightAnswers();
}

TEST_F(WorkerLazyTest, DamagedFilesArePackedAgain) {
  const int64_t whole = WholeBytes();
  ASSERT_OK(StartWith(whole - kTooLittle));
  ExpectRightAnswers();
  // Other files in their places: what is mapped of the old ones stays, as memory does when a disk
  // fails.
  const auto replace = [&](size_t size) {
    for (const std::filesystem::path& path : PackedFiles()) {
      ASSERT_OK_AND_ASSIGN(std::string content, base::ReadFile(path));
      content.replace(5000, 6, "damage");
      if (size < content.size()) content.resize(size);
      ASSERT_OK(base::WriteFileAtomically(path, content));
    }
  };
  for (const size_t size : {size_t{1} << 30, size_t{9000}}) {
    replace(size);
    ASSERT_OK(Load());
    ExpectRightAnswers();
  }
  for (const std::filesystem::path& path : PackedFiles()) std::filesystem::remove(path);
  ASSERT_OK(Load());
  ExpectRightAnswers();
}

TEST_F(WorkerLazyTest, WithoutAPlaceOnDiskItSaysSo) {
  const int64_t whole = WholeBytes();
  keeps_packed_ = false;
  EXPECT_THAT(StartWith(whole - kTooLittle),
              StatusIs(absl::StatusCode::kFailedPrecondition, HasSubstr("--no-packed-cache")));
  EXPECT_THAT(StartWith(6 * kMiB), StatusIs(absl::StatusCode::kResourceExhausted));
}

}  // namespace
}  // namespace renga::worker

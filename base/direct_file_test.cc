#include "base/direct_file.h"

#include <cstdlib>
#include <cstring>
#include <memory>
#include <string>

#include "absl/strings/str_cat.h"
#include "base/file.h"
#include "base/testing/status_matchers.h"
#include "base/testing/temp_folder.h"
#include "gtest/gtest.h"

namespace renga::base {
namespace {

using ::renga::testing::IsOkAndHolds;
using ::renga::testing::StatusIs;

class DirectFileTest : public ::testing::Test {
 protected:
  void SetUp() override {
    for (size_t i = 0; i < content_.size(); ++i) content_[i] = static_cast<char>(i * 7 + i / 256);
    ASSERT_OK(WriteFileAtomically(path_, content_));
    ASSERT_OK_AND_ASSIGN(file_, DirectFile::Open(path_));
    std::memset(room_.get(), 0, kRoomBytes);
  }
  std::span<std::byte> Room(int64_t bytes = kRoomBytes) {
    return {static_cast<std::byte*>(room_.get()), static_cast<size_t>(bytes)};
  }

  static constexpr int64_t kRoomBytes = int64_t{6} << 20;
  const std::string path_ = absl::StrCat(renga::testing::NewTempFolder(), "/file");
  std::string content_ = std::string(5'000'001, '\0');  // longer than one read, and no whole page
  std::unique_ptr<DirectFile> file_;
  const std::unique_ptr<void, decltype(&std::free)> room_{
      std::aligned_alloc(kDirectAlignment, kRoomBytes), &std::free};
};

TEST_F(DirectFileTest, ReadsToTheEndOfTheFile) {
  EXPECT_THAT(file_->Size(), IsOkAndHolds(5'000'001));
  for (const int64_t offset : {int64_t{0}, int64_t{4096}, int64_t{4096 * 1000}}) {
    const int64_t bytes = 5'000'001 - offset;
    ASSERT_OK(file_->ReadAt(offset, Room(), bytes));
    EXPECT_EQ(std::memcmp(room_.get(), content_.data() + offset, static_cast<size_t>(bytes)), 0);
  }
}

TEST_F(DirectFileTest, SaysThatTheFileIsShorter) {
  EXPECT_THAT(file_->ReadAt(0, Room(), 5'000'002), StatusIs(absl::StatusCode::kOutOfRange));
  EXPECT_THAT(file_->ReadAt(4096 * 4096, Room(), 1), StatusIs(absl::StatusCode::kOutOfRange));
}

TEST_F(DirectFileTest, WantsWholePages) {
  EXPECT_THAT(file_->ReadAt(1, Room(), 10), StatusIs(absl::StatusCode::kInvalidArgument));
  EXPECT_THAT(file_->ReadAt(0, Room(100), 10), StatusIs(absl::StatusCode::kInvalidArgument));
  EXPECT_THAT(file_->ReadAt(0, Room(4096), 4097), StatusIs(absl::StatusCode::kInvalidArgument));
  EXPECT_THAT(DirectFile::Open(path_ + ".not"), StatusIs(absl::StatusCode::kNotFound));
}

}  // namespace
}  // namespace renga::base

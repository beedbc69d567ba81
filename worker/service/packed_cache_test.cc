#include "worker/service/packed_cache.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>

#include <algorithm>
#include <array>
#include <chrono>
#include <filesystem>
#include <fstream>
#include <string>
#include <vector>

#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "base/file.h"
#include "base/testing/status_matchers.h"
#include "base/testing/temp_folder.h"
#include "worker/service/packed_saver.h"
#include "worker/service/testing/test_setup.h"

namespace renga::worker {
namespace {

using ::renga::testing::StatusIs;

const std::string kPackedModel(16, '\xab');
constexpr PackedId kId = {
    .tensor = 7, .type = base::DataType::kQ4_0, .rows = {8, 24}, .columns = {0, 64}};

std::vector<std::byte> Matrix(int value) {
  return std::vector<std::byte>(576, static_cast<std::byte>(value));
}
bool Never() { return false; }
bool Same(const std::optional<kernels::PackedBytes>& found, const std::vector<std::byte>& want) {
  return found.has_value() && std::ranges::equal(found->bytes, want);
}

class PackedCacheTest : public ::testing::Test {
 protected:
  PackedCache Open() const { return PackedCache(folder_, kPackedModel, "panels8-1"); }
  // Changes one byte of the matrix and puts back the file's time, as a failing disk would.
  void Damage() const {
    const auto time = std::filesystem::last_write_time(File());
    std::fstream file(File(), std::ios::in | std::ios::out | std::ios::binary);
    file.seekp(4096 + 100);
    file.put('x');
    file.close();
    std::filesystem::last_write_time(File(), time);
  }
  std::string File() const { return Directory() + "/7-8-24-0-64"; }
  std::string Directory() const {
    return folder_ + "/packed/abababababababababababababababab/panels8-1";
  }

  const std::string folder_ = renga::testing::NewTempFolder();
  const std::vector<std::byte> matrix_ = Matrix(3);
};

TEST_F(PackedCacheTest, TheNextProcessFindsWhatWasKept) {
  {
    PackedCache cache = Open();
    EXPECT_FALSE(cache.Find(kId, 576).has_value());
    ASSERT_OK(cache.Keep(kId, matrix_, Never));
    EXPECT_TRUE(Same(cache.Find(kId, 576), matrix_));
  }
  PackedCache cache = Open();
  const auto found = cache.Find(kId, 576);
  ASSERT_TRUE(Same(found, matrix_));
  EXPECT_EQ(reinterpret_cast<uintptr_t>(found->bytes.data()) % 64, 0u);
}

TEST_F(PackedCacheTest, BytesStayWhenTheFileIsReplacedOrRemoved) {
  PackedCache cache = Open();
  ASSERT_OK(cache.Keep(kId, matrix_, Never));
  const auto found = cache.Find(kId, 576);
  ASSERT_OK(cache.Keep(kId, Matrix(4), Never));
  EXPECT_TRUE(Same(found, matrix_));
  EXPECT_TRUE(Same(cache.Find(kId, 576), Matrix(4)));
  std::filesystem::remove(File());
  EXPECT_TRUE(Same(found, matrix_));
  EXPECT_FALSE(cache.Find(kId, 576).has_value());
}

TEST_F(PackedCacheTest, OtherModelsLayoutsAndRowsAreOthers) {
  ASSERT_OK(Open().Keep(kId, matrix_, Never));
  EXPECT_FALSE(PackedCache(folder_, std::string(16, '\xac'), "panels8-1").Find(kId, 576));
  EXPECT_FALSE(PackedCache(folder_, kPackedModel, "panels16-1").Find(kId, 576));
  PackedId other = kId;
  other.rows = {8, 32};
  EXPECT_FALSE(Open().Find(other, 576).has_value());
}

// The header says what the file is of: a name alone is not believed.
TEST_F(PackedCacheTest, AFileOfAnotherShapeIsRemoved) {
  PackedId other = kId;
  other.type = base::DataType::kQ4_1;
  ASSERT_OK(Open().Keep(kId, matrix_, Never));
  EXPECT_FALSE(Open().Find(other, 576).has_value());
  EXPECT_FALSE(std::filesystem::exists(File()));
  ASSERT_OK(Open().Keep(kId, matrix_, Never));
  EXPECT_FALSE(Open().Find(kId, 512).has_value());
  EXPECT_FALSE(std::filesystem::exists(File()));
}

TEST_F(PackedCacheTest, DamageIsFoundAfterARestartOfTheMachine) {
  ASSERT_OK(Open().Keep(kId, matrix_, Never));
  Damage();
  // As after a restart: what was checked before counts no more.
  std::filesystem::remove(Directory() + "/checked");
  EXPECT_FALSE(Open().Find(kId, 576).has_value());
  EXPECT_FALSE(std::filesystem::exists(File()));
}

TEST_F(PackedCacheTest, AChangedFileIsCheckedAgainAtOnce) {
  ASSERT_OK(Open().Keep(kId, matrix_, Never));
  Damage();
  std::filesystem::last_write_time(File(), std::filesystem::file_time_type::clock::now());
  EXPECT_FALSE(Open().Find(kId, 576).has_value());
}

// Not a promise but the point of the list: a file in it is not read through.
TEST_F(PackedCacheTest, AnUnchangedFileIsCheckedOnce) {
  ASSERT_OK(Open().Keep(kId, matrix_, Never));
  Damage();
  EXPECT_TRUE(Open().Find(kId, 576).has_value());
}

TEST_F(PackedCacheTest, AnyListOfCheckedFilesIsHarmless) {
  for (const std::string& text : {std::string(), std::string("another start\n7-8-24-0-64 1\n"),
                                  std::string(5000, '\n'), std::string("\0\xff 7-8-24-0-64", 14)}) {
    ASSERT_OK(Open().Keep(kId, matrix_, Never));
    Damage();
    ASSERT_OK(base::WriteFileAtomically(Directory() + "/checked", text));
    PackedCache cache = Open();
    EXPECT_FALSE(cache.Find(kId, 576).has_value());
  }
}

TEST_F(PackedCacheTest, CutAndEmptyFilesAreRemoved) {
  for (const size_t size : {size_t{0}, size_t{100}, size_t{4096}, size_t{4096 + 575}}) {
    ASSERT_OK(Open().Keep(kId, matrix_, Never));
    std::filesystem::resize_file(File(), size);
    EXPECT_FALSE(Open().Find(kId, 576).has_value()) << size;
    EXPECT_FALSE(std::filesystem::exists(File())) << size;
  }
}

// A matrix that is read again and again instead of being mapped.
class StreamedMatrixTest : public PackedCacheTest {
 protected:
  absl::Status Read(PackedCache& cache) { return cache.ReadInto(kId, 576, room_); }
  bool IsRight() const { return std::ranges::equal(std::span(room_).first(576), matrix_); }

  alignas(4096) std::array<std::byte, 4096> room_ = {};
};

TEST_F(StreamedMatrixTest, IsReadAgainAndAgain) {
  PackedCache cache = Open();
  EXPECT_FALSE(cache.Has(kId, 576));
  EXPECT_THAT(Read(cache), StatusIs(absl::StatusCode::kNotFound));
  ASSERT_OK(cache.Keep(kId, matrix_, Never));
  cache.DropPages(kId);
  EXPECT_TRUE(cache.Has(kId, 576));
  EXPECT_FALSE(cache.Has(kId, 512));
  for (int i = 0; i < 3; ++i) {
    room_.fill(std::byte{9});
    ASSERT_OK(Read(cache));
    EXPECT_TRUE(IsRight());
  }
}

TEST_F(StreamedMatrixTest, IsCheckedOnceABootAndWhenItsFileIsAnother) {
  ASSERT_OK(Open().Keep(kId, matrix_, Never));
  Damage();
  PackedCache cache = Open();
  ASSERT_OK(Read(cache));  // not on each use
  EXPECT_FALSE(IsRight());
  std::filesystem::last_write_time(File(), std::filesystem::file_time_type::clock::now());
  EXPECT_THAT(Read(cache), StatusIs(absl::StatusCode::kDataLoss));
  EXPECT_FALSE(std::filesystem::exists(File()));
  ASSERT_OK(cache.Keep(kId, matrix_, Never));
  ASSERT_OK(Read(cache));
  EXPECT_TRUE(IsRight());
  std::filesystem::resize_file(File(), 4096 + 100);
  EXPECT_FALSE(cache.Has(kId, 576));
  EXPECT_THAT(Read(cache), StatusIs(absl::StatusCode::kOutOfRange));
}

TEST_F(PackedCacheTest, CancellingLeavesNothing) {
  PackedCache cache = Open();
  EXPECT_THAT(cache.Keep(kId, matrix_, [] { return true; }),
              StatusIs(absl::StatusCode::kCancelled));
  EXPECT_TRUE(std::filesystem::is_empty(Directory()));
}

TEST_F(PackedCacheTest, WhatAKilledProcessLeftIsRemoved) {
  ASSERT_OK(Open().Keep(kId, matrix_, Never));
  ASSERT_OK(base::WriteFileAtomically(File() + ".Ab12Cd", "begun"));
  Open().RemoveLeftovers();
  EXPECT_TRUE(std::filesystem::exists(File() + ".Ab12Cd"));  // perhaps still being written
  const auto long_ago = std::filesystem::file_time_type::clock::now() - std::chrono::hours(2);
  for (const auto& entry : std::filesystem::directory_iterator(Directory())) {
    std::filesystem::last_write_time(entry.path(), long_ago);
  }
  Open().RemoveLeftovers();
  EXPECT_FALSE(std::filesystem::exists(File() + ".Ab12Cd"));
  EXPECT_TRUE(std::filesystem::exists(File()));
  PackedCache(folder_ + "/none", kPackedModel, "panels8-1").RemoveLeftovers();
}

TEST_F(PackedCacheTest, WhatEarlierVersionsPackedIsRemoved) {
  const auto keep = [&](const std::string& layout) {
    PackedCache cache(folder_, kPackedModel, layout);
    EXPECT_OK(cache.Keep(kId, matrix_, Never));
  };
  for (const char* layout : {"panels8-2", "panels8-10", "panels8-3", "panels16-2", "other"}) {
    keep(layout);
  }
  const auto has = [&](const std::string& layout) {
    return PackedCache(folder_, kPackedModel, layout).Find(kId, 576).has_value();
  };
  PackedCache(folder_, kPackedModel, "panels8-3").RemoveLeftovers();
  EXPECT_FALSE(has("panels8-2"));
  EXPECT_TRUE(has("panels8-3"));
  EXPECT_TRUE(has("panels8-10")) << "a later one";
  EXPECT_TRUE(has("panels16-2")) << "other processors";
  EXPECT_TRUE(has("other"));
  PackedCache(folder_, kPackedModel, "other").RemoveLeftovers();
  EXPECT_TRUE(has("panels8-3"));
}

TEST_F(PackedCacheTest, AFolderThatCannotBeMadeIsAnError) {
  ASSERT_OK(base::WriteFileAtomically(folder_ + "/packed", "a file"));
  PackedCache cache = Open();
  EXPECT_FALSE(cache.Find(kId, 576).has_value());
  EXPECT_FALSE(cache.Keep(kId, matrix_, Never).ok());
}

TEST_F(PackedCacheTest, WithoutADirectoryOrALayoutNothingIsKept) {
  EXPECT_FALSE(PackedCache("", kPackedModel, "panels8-1").enabled());
  EXPECT_FALSE(PackedCache(folder_, kPackedModel, "").enabled());
  EXPECT_FALSE(PackedCache("", kPackedModel, "panels8-1").Find(kId, 576).has_value());
}

TEST_F(PackedCacheTest, TheSaverKeepsInTheBackground) {
  PackedCache cache = Open();
  {
    PackedId second = kId;
    second.tensor = 8;
    const PackedSaver saver(&cache, {{kId, matrix_}, {second, matrix_}});
    const absl::Time deadline = absl::Now() + absl::Seconds(20);
    while (!cache.Find(second, 576).has_value() && absl::Now() < deadline) {
      absl::SleepFor(absl::Milliseconds(1));
    }
  }
  EXPECT_TRUE(Same(cache.Find(kId, 576), matrix_));
  const PackedSaver nothing_to_do(&cache, {});
}

}  // namespace
}  // namespace renga::worker

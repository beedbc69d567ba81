#include "worker/service/piece_cache.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <filesystem>
#include <string>
#include <vector>

#include "base/file.h"
#include "base/testing/status_matchers.h"
#include "base/testing/temp_folder.h"
#include "transport/dialer.h"
#include "worker/service/testing/test_setup.h"

namespace renga::worker {
namespace {

constexpr size_t kPiece = transport::kPieceBytes;
const std::string kModelId(16, '\xab');

std::vector<std::byte> Bytes(size_t size, int value) {
  return std::vector<std::byte>(size, static_cast<std::byte>(value));
}

TEST(PieceCacheTest, PiecesAreFoundByTheNextProcess) {
  const std::string folder = renga::testing::NewTempFolder();
  {
    PieceCache cache(folder, kModelId);
    EXPECT_FALSE(cache.MayHave(3, 0));
    cache.Write(3, 2, Bytes(kPiece, 2));
    cache.Write(3, 4, Bytes(100, 4));  // the last piece of its tensor is shorter
    cache.Write(70000, 0, Bytes(10, 7));
    EXPECT_TRUE(cache.MayHave(3, 2));
  }
  PieceCache cache(folder, kModelId);
  EXPECT_TRUE(std::filesystem::exists(folder + "/shards/abababababababababababababababab/00003"));
  EXPECT_TRUE(cache.MayHave(3, 2));
  EXPECT_TRUE(cache.MayHave(3, 4));
  EXPECT_FALSE(cache.MayHave(3, 5));
  EXPECT_FALSE(cache.MayHave(2, 0));
  std::vector<std::byte> out(kPiece);
  ASSERT_OK(cache.Read(3, 2, out));
  EXPECT_EQ(out, Bytes(kPiece, 2));
  out.resize(100);
  ASSERT_OK(cache.Read(3, 4, out));
  EXPECT_EQ(out, Bytes(100, 4));
  out.resize(10);
  ASSERT_OK(cache.Read(70000, 0, out));
  // Another model's pieces are elsewhere.
  EXPECT_FALSE(PieceCache(folder, std::string(16, '\x01')).MayHave(3, 2));
}

TEST(PieceCacheTest, HolesAreNoPieces) {
  const std::string folder = renga::testing::NewTempFolder();
  PieceCache(folder, kModelId).Write(0, 20, Bytes(kPiece, 1));
  struct stat info = {};
  ASSERT_EQ(::stat((folder + "/shards/abababababababababababababababab/00000").c_str(), &info), 0);
  if (info.st_blocks * 512 > info.st_size / 2) GTEST_SKIP() << "no sparse files here";
  PieceCache cache(folder, kModelId);
  for (uint32_t piece = 0; piece < 20; ++piece) EXPECT_FALSE(cache.MayHave(0, piece)) << piece;
  EXPECT_TRUE(cache.MayHave(0, 20));
}

TEST(PieceCacheTest, AForgottenPieceCanBeWrittenAgain) {
  const std::string folder = renga::testing::NewTempFolder();
  PieceCache cache(folder, kModelId);
  cache.Write(1, 0, Bytes(64, 1));
  cache.Forget(1, 0);
  EXPECT_FALSE(cache.MayHave(1, 0));
  cache.Write(1, 0, Bytes(64, 9));
  std::vector<std::byte> out(64);
  ASSERT_OK(cache.Read(1, 0, out));
  EXPECT_EQ(out, Bytes(64, 9));
}

TEST(PieceCacheTest, WithoutAUsableFolderItKeepsNothing) {
  PieceCache none("", kModelId);
  none.Write(0, 0, Bytes(10, 1));
  EXPECT_FALSE(none.MayHave(0, 0));

  const std::string file = renga::testing::NewTempFolder() + "/file";
  ASSERT_OK(base::WriteFileAtomically(file, "not a folder"));
  PieceCache refused(file, kModelId);
  refused.Write(0, 0, Bytes(10, 1));
  EXPECT_FALSE(refused.MayHave(0, 0));
}

TEST(PieceCacheTest, AFullDiskEndsTheCacheNotTheLoad) {
  // Every write to it fails with "no space left on device".
  const std::string folder = renga::testing::NewTempFolder();
  const std::string model_folder = folder + "/shards/abababababababababababababababab";
  ASSERT_OK(base::CreateDirectories(model_folder));
  if (::access("/dev/full", W_OK) != 0) GTEST_SKIP() << "no /dev/full here";
  ASSERT_EQ(::symlink("/dev/full", (model_folder + "/00000").c_str()), 0);
  PieceCache cache(folder, kModelId);
  cache.Write(0, 0, Bytes(10, 1));
  EXPECT_FALSE(cache.MayHave(0, 0));
  cache.Write(1, 0, Bytes(10, 1));
  EXPECT_FALSE(cache.MayHave(1, 0));
}

TEST(PieceCacheTest, LeavesRoomForWhatComesFirstAndKeepsWhatItHas) {
  const std::string folder = renga::testing::NewTempFolder();
  PieceCache cache(folder, std::string(16, '\x02'));
  const std::vector<std::byte> bytes(1000, std::byte{7});
  cache.Write(0, 0, bytes);
  EXPECT_TRUE(cache.keeps());
  cache.LeaveRoom(int64_t{1} << 60);
  cache.Write(0, 1, bytes);
  EXPECT_FALSE(cache.keeps());
  EXPECT_FALSE(cache.MayHave(0, 1));
  EXPECT_TRUE(cache.MayHave(0, 0));
  std::vector<std::byte> read(1000);
  ASSERT_OK(cache.Read(0, 0, read));
  EXPECT_EQ(read, bytes);
}

}  // namespace
}  // namespace renga::worker

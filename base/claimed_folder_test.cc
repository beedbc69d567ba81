#include "base/claimed_folder.h"

#include <sys/wait.h>
#include <unistd.h>

#include <filesystem>
#include <optional>

#include "base/testing/status_matchers.h"
#include "base/testing/temp_folder.h"
#include "gtest/gtest.h"

namespace renga::base {
namespace {

TEST(ClaimedFolderTest, EachHolderHasItsOwn) {
  const std::string path = testing::NewTempFolder() + "/a/worker";
  auto first = ClaimedFolder::Claim(path);
  ASSERT_OK(first);
  EXPECT_EQ(first->path(), path);
  EXPECT_TRUE(std::filesystem::is_directory(path));
  ASSERT_OK_AND_ASSIGN(const ClaimedFolder second, ClaimedFolder::Claim(path));
  EXPECT_EQ(second.path(), path + "-2");
  {
    ASSERT_OK_AND_ASSIGN(const ClaimedFolder third, ClaimedFolder::Claim(path));
    EXPECT_EQ(third.path(), path + "-3");
  }
  std::optional<ClaimedFolder> moved = std::move(*first);
  ASSERT_OK_AND_ASSIGN(const ClaimedFolder again, ClaimedFolder::Claim(path));
  EXPECT_EQ(again.path(), path + "-3");
  moved.reset();
  ASSERT_OK_AND_ASSIGN(const ClaimedFolder freed, ClaimedFolder::Claim(path));
  EXPECT_EQ(freed.path(), path);
}

// However the holder ends.
TEST(ClaimedFolderTest, AProcessThatEndedHoldsNothing) {
  const std::string path = testing::NewTempFolder() + "/worker";
  const pid_t child = ::fork();
  if (child == 0) ::_exit(ClaimedFolder::Claim(path).ok() ? 0 : 1);
  int status = -1;
  ASSERT_EQ(::waitpid(child, &status, 0), child);
  EXPECT_EQ(status, 0);
  ASSERT_OK_AND_ASSIGN(const ClaimedFolder claimed, ClaimedFolder::Claim(path));
  EXPECT_EQ(claimed.path(), path);
}

TEST(ClaimedFolderTest, WhatCannotBeMadeIsSaid) {
  EXPECT_FALSE(ClaimedFolder::Claim("/proc/nothing/here").ok());
}

}  // namespace
}  // namespace renga::base

#include "base/file.h"

#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "base/testing/status_matchers.h"
#include "base/testing/temp_folder.h"
#include "gtest/gtest.h"

namespace renga::base {
namespace {

using ::renga::testing::IsOkAndHolds;
using ::renga::testing::StatusIs;
using ::testing::HasSubstr;

std::span<const std::byte> Bytes(absl::string_view text) {
  return std::as_bytes(std::span(text.data(), text.size()));
}
std::string Text(std::span<const std::byte> bytes) {
  return std::string(reinterpret_cast<const char*>(bytes.data()), bytes.size());
}

class FileTest : public ::testing::Test {
 protected:
  std::string Path(absl::string_view name) const { return absl::StrCat(folder_, "/", name); }

  const std::string folder_ = renga::testing::NewTempFolder();
};

TEST_F(FileTest, WritesWholeFilesAtomicallyWithTheModeAsked) {
  ASSERT_OK(WriteFileAtomically(Path("secret"), "one", 0600));
  EXPECT_THAT(ReadFile(Path("secret")), IsOkAndHolds("one"));
  struct stat info = {};
  ASSERT_EQ(stat(Path("secret").c_str(), &info), 0);
  EXPECT_EQ(info.st_mode & 0777, 0600u);
  ASSERT_OK(WriteFileAtomically(Path("secret"), "two"));
  EXPECT_THAT(ReadFile(Path("secret")), IsOkAndHolds("two"));
  // No temporary file is left.
  EXPECT_EQ(std::distance(std::filesystem::directory_iterator(folder_), {}), 1);
}

TEST_F(FileTest, AFailedWriteLeavesTheOldFile) {
  ASSERT_OK(CreateDirectories(Path("taken/child")));
  EXPECT_FALSE(WriteFileAtomically(Path("taken"), "x").ok());
  EXPECT_TRUE(std::filesystem::is_directory(Path("taken/child")));
  EXPECT_EQ(std::distance(std::filesystem::directory_iterator(folder_), {}), 1);
  EXPECT_THAT(WriteFileAtomically(Path("no/such/folder/file"), "x"),
              StatusIs(absl::StatusCode::kNotFound, HasSubstr("no/such/folder/file")));
}

TEST_F(FileTest, ReadFileRefusesMoreThanAllowed) {
  ASSERT_OK(WriteFileAtomically(Path("a"), "12345"));
  EXPECT_THAT(ReadFile(Path("a"), 5), IsOkAndHolds("12345"));
  EXPECT_THAT(ReadFile(Path("a"), 4), StatusIs(absl::StatusCode::kResourceExhausted));
  EXPECT_THAT(ReadFile(Path("b")), StatusIs(absl::StatusCode::kNotFound, HasSubstr(Path("b"))));
  EXPECT_THAT(ReadFile(folder_), StatusIs(absl::StatusCode::kInvalidArgument));
}

TEST_F(FileTest, MapsWholeFilesEmptyOnesToo) {
  ASSERT_OK(WriteFileAtomically(Path("a"), "hello"));
  ASSERT_OK_AND_ASSIGN(const auto mapped, MappedFile::Open(Path("a")));
  EXPECT_EQ(Text(mapped->bytes()), "hello");
  EXPECT_EQ(mapped->path(), Path("a"));
  // Replacing the file does not disturb the mapping.
  ASSERT_OK(WriteFileAtomically(Path("a"), ""));
  EXPECT_EQ(Text(mapped->bytes()), "hello");
  ASSERT_OK_AND_ASSIGN(const auto empty, MappedFile::Open(Path("a")));
  EXPECT_TRUE(empty->bytes().empty());
  EXPECT_THAT(MappedFile::Open(Path("none")), StatusIs(absl::StatusCode::kNotFound));
  EXPECT_THAT(MappedFile::Open(folder_), StatusIs(absl::StatusCode::kInvalidArgument));
}

TEST_F(FileTest, PositionedReadsAndWrites) {
  ASSERT_OK_AND_ASSIGN(auto file,
                       RandomAccessFile::Open(Path("a"), RandomAccessFile::Mode::kReadWrite));
  ASSERT_OK(file->WriteAt(3, Bytes("def")));
  ASSERT_OK(file->WriteAt(0, Bytes("abc")));
  EXPECT_THAT(file->Size(), IsOkAndHolds(6));
  std::vector<std::byte> out(4);
  ASSERT_OK(file->ReadAt(1, out));
  EXPECT_EQ(Text(out), "bcde");
  EXPECT_OK(file->ReadAt(6, {}));
  EXPECT_THAT(file->ReadAt(3, out), StatusIs(absl::StatusCode::kOutOfRange, HasSubstr("byte 6")));
  ASSERT_OK_AND_ASSIGN(auto again,
                       RandomAccessFile::Open(Path("a"), RandomAccessFile::Mode::kRead));
  ASSERT_OK(again->ReadAt(2, out));
  EXPECT_EQ(Text(out), "cdef");
  EXPECT_FALSE(again->WriteAt(0, Bytes("x")).ok());
  EXPECT_THAT(RandomAccessFile::Open(Path("b"), RandomAccessFile::Mode::kRead),
              StatusIs(absl::StatusCode::kNotFound));
}

TEST_F(FileTest, ReadsAtOnceOrNotAtAll) {
  ASSERT_OK_AND_ASSIGN(auto file,
                       RandomAccessFile::Open(Path("a"), RandomAccessFile::Mode::kReadWrite));
  ASSERT_OK(file->WriteAt(0, Bytes("abcdef")));
  std::vector<std::byte> out(4);
  // Not every file system can tell.
  if (file->ReadAtOnce(1, out)) {
    EXPECT_EQ(Text(out), "bcde");
  }
  ASSERT_OK(file->ReadAt(2, out));
  EXPECT_EQ(Text(out), "cdef");
  EXPECT_FALSE(file->ReadAtOnce(3, out));
  EXPECT_FALSE(file->ReadAtOnce(100, out));
}

TEST_F(FileTest, CreatesFoldersAndSaysWhatIsInTheWay) {
  EXPECT_OK(CreateDirectories(Path("a/b/c")));
  EXPECT_OK(CreateDirectories(Path("a/b/c")));
  ASSERT_OK(WriteFileAtomically(Path("file"), ""));
  EXPECT_THAT(CreateDirectories(Path("file/below")),
              StatusIs(absl::StatusCode::kNotFound, HasSubstr("file/below")));
}

TEST(FileErrorTest, EachErrnoHasTheCodeACallerActsOn) {
  EXPECT_THAT(FileError(ENOENT, "cannot open", "/x"),
              StatusIs(absl::StatusCode::kNotFound, HasSubstr("cannot open /x: ")));
  EXPECT_THAT(FileError(EACCES, "w", "p"), StatusIs(absl::StatusCode::kPermissionDenied));
  EXPECT_THAT(FileError(ENOSPC, "w", "p"), StatusIs(absl::StatusCode::kResourceExhausted));
  EXPECT_THAT(FileError(EIO, "w", "p"), StatusIs(absl::StatusCode::kUnavailable));
}

// Sets a variable for one test.
class ScopedVariable {
 public:
  ScopedVariable(const char* name, const char* value) : name_(name) {
    if (const char* old = std::getenv(name)) old_ = old;
    value != nullptr ? setenv(name, value, 1) : unsetenv(name);
  }
  ~ScopedVariable() { old_.empty() ? unsetenv(name_) : setenv(name_, old_.c_str(), 1); }

 private:
  const char* name_;
  std::string old_;
};

TEST(UserFoldersTest, FollowTheXdgVariablesThenHome) {
  const ScopedVariable home("HOME", "/home/ada");
  {
    const ScopedVariable cache("XDG_CACHE_HOME", "/fast/cache");
    const ScopedVariable state("XDG_STATE_HOME", "relative/is/ignored");
    EXPECT_EQ(CacheDirectory(), "/fast/cache/renga");
    EXPECT_EQ(StateDirectory(), "/home/ada/.local/state/renga");
  }
  const ScopedVariable cache("XDG_CACHE_HOME", nullptr);
  EXPECT_EQ(CacheDirectory(), "/home/ada/.cache/renga");
}

}  // namespace
}  // namespace renga::base

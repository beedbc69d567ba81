#include "model/gguf_writer.h"

#include <cstdio>
#include <filesystem>
#include <limits>

#include "absl/strings/str_cat.h"
#include "base/testing/status_matchers.h"

namespace renga::model {
namespace {

using ::renga::testing::StatusIs;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

class GgufWriterTest : public ::testing::Test {
 protected:
  GgufWriterTest() {
    const auto* test = ::testing::UnitTest::GetInstance()->current_test_info();
    path_ = absl::StrCat(::testing::TempDir(), "renga_writer_", test->name(), ".gguf");
    std::remove(path_.c_str());
  }
  ~GgufWriterTest() override { std::remove(path_.c_str()); }

  // `size` bytes counting up, in pieces of 7.
  static GgufTensorToWrite Counting(const std::string& name, base::DataType type,
                                    std::vector<int64_t> dims, int64_t size) {
    return {.name = name,
            .type = type,
            .dims = std::move(dims),
            .fill = [size](const GgufTensorToWrite::Sink& sink) -> absl::Status {
              std::vector<std::byte> piece;
              for (int64_t i = 0; i < size; ++i) {
                piece.push_back(static_cast<std::byte>(i));
                if (piece.size() < 7 && i + 1 < size) continue;
                if (absl::Status status = sink(piece); !status.ok()) return status;
                piece.clear();
              }
              return absl::OkStatus();
            }};
  }

  void ExpectNothingLeft() const {
    EXPECT_FALSE(std::filesystem::exists(path_));
    EXPECT_FALSE(std::filesystem::exists(path_ + ".partial"));
  }

  std::string path_;
};

TEST_F(GgufWriterTest, ReadsBackWhatWasWritten) {
  GgufMetadata metadata;
  metadata.Set("general.alignment", uint64_t{64});
  metadata.Set("small", uint64_t{7});
  metadata.Set("large", std::numeric_limits<uint64_t>::max());
  metadata.Set("negative", int64_t{-7});
  metadata.Set("very negative", std::numeric_limits<int64_t>::min());
  metadata.Set("half", 0.5);
  metadata.Set("third", 1.0 / 3.0);
  metadata.Set("huge", 1e300);
  metadata.Set("flag", true);
  metadata.Set("text", std::string("h\xc3\xa9llo"));
  metadata.Set("ints", GgufArray(std::vector<int64_t>{-1, 2}));
  metadata.Set("long ints", GgufArray(std::vector<int64_t>{-1, int64_t{1} << 40}));
  metadata.Set("uints", GgufArray(std::vector<uint64_t>{1, 2}));
  metadata.Set("long uints", GgufArray(std::vector<uint64_t>{1, uint64_t{1} << 63}));
  metadata.Set("floats", GgufArray(std::vector<double>{0.5, -2}));
  metadata.Set("doubles", GgufArray(std::vector<double>{0.1, 2}));
  metadata.Set("flags", GgufArray(std::vector<bool>{true, false}));
  metadata.Set("strings", GgufArray(std::vector<std::string>{"a", "", "b"}));
  metadata.Set("none", GgufArray(std::vector<std::string>{}));
  ASSERT_OK(WriteGguf(path_, metadata,
                      {Counting("a", base::DataType::kF32, {5, 3}, 60),
                       Counting("b", base::DataType::kQ4_0, {64, 2, 3}, 216)}));

  ASSERT_OK_AND_ASSIGN(const auto file, GgufFile::Open(path_));
  EXPECT_EQ(file->metadata().keys(), metadata.keys());
  for (const std::string& key : metadata.keys()) {
    EXPECT_EQ(*file->metadata().Find(key), *metadata.Find(key)) << key;
  }
  ASSERT_EQ(file->tensors().size(), 2u);
  const GgufTensor& b = file->tensors()[1];
  EXPECT_EQ(b.name, "b");
  EXPECT_EQ(b.type, base::DataType::kQ4_0);
  EXPECT_THAT(b.dims, ElementsAre(64, 2, 3));
  EXPECT_EQ(b.file_offset % 64, 0);
  for (const GgufTensor& tensor : file->tensors()) {
    const auto bytes = file->TensorBytes(tensor);
    for (size_t i = 0; i < bytes.size(); ++i) ASSERT_EQ(bytes[i], static_cast<std::byte>(i));
  }
}

TEST_F(GgufWriterTest, ReplacesALongerFile) {
  ASSERT_OK(WriteGguf(path_, {}, {Counting("a", base::DataType::kF32, {1000}, 4000)}));
  ASSERT_OK(WriteGguf(path_, {}, {Counting("a", base::DataType::kF32, {1}, 4)}));
  EXPECT_LT(std::filesystem::file_size(path_), 200u);
}

TEST_F(GgufWriterTest, RefusesTooFewAndTooManyBytes) {
  EXPECT_THAT(WriteGguf(path_, {}, {Counting("a", base::DataType::kF32, {4}, 15)}),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("15 of its 16 bytes")));
  ExpectNothingLeft();
  EXPECT_THAT(WriteGguf(path_, {}, {Counting("a", base::DataType::kF32, {4}, 17)}),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("more than its 16 bytes")));
  ExpectNothingLeft();
}

TEST_F(GgufWriterTest, RefusesWhatNoReaderTakes) {
  const auto refused = [&](const std::vector<GgufTensorToWrite>& tensors, const char* text) {
    EXPECT_THAT(WriteGguf(path_, {}, tensors),
                StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr(text)));
    ExpectNothingLeft();
  };
  const auto tensor = [](const std::string& name, std::vector<int64_t> dims) {
    return Counting(name, base::DataType::kF32, std::move(dims), 4);
  };
  refused({tensor("", {1})}, "needs a name, a type and 1 to 4 dimensions");
  refused({tensor("a", {})}, "needs a name, a type and 1 to 4 dimensions");
  refused({tensor("a", {1, 0})}, "tensor a has the dimension 0");
  refused({tensor("a", {1 << 30, 1 << 30, 1 << 30})}, "tensor a is too large");
  refused({tensor("a", {1}), tensor("a", {1})}, "tensor a occurs twice");
  refused({Counting("a", base::DataType::kQ4_K, {64}, 4)}, "multiple of 256");
  GgufMetadata metadata;
  metadata.Set("general.alignment", uint64_t{24});
  EXPECT_THAT(WriteGguf(path_, metadata, {}),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("not a power of two")));
}

TEST_F(GgufWriterTest, ReportsAFolderThatIsNotThere) {
  EXPECT_THAT(WriteGguf(path_ + "/none/x.gguf", {}, {}), StatusIs(absl::StatusCode::kNotFound));
}

}  // namespace
}  // namespace renga::model

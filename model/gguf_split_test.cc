// Split models: several files that are opened as one.
#include <cstdio>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "base/testing/status_matchers.h"
#include "model/gguf_file.h"
#include "model/gguf_writer.h"

namespace renga::model {
namespace {

using ::renga::testing::StatusIs;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

constexpr int64_t kParts = 3;

GgufTensorToWrite Floats(const std::string& name, float value) {
  return {.name = name,
          .type = base::DataType::kF32,
          .dims = {2},
          .fill = [value](const GgufTensorToWrite::Sink& sink) {
            const float values[] = {value, value};
            return sink(std::as_bytes(std::span(values)));
          }};
}

// Three parts in the test's folder; each test may change what goes into one of them.
class GgufSplitTest : public ::testing::Test {
 protected:
  struct Part {
    GgufMetadata metadata;
    std::vector<GgufTensorToWrite> tensors;
  };

  GgufSplitTest() {
    const auto* test = ::testing::UnitTest::GetInstance()->current_test_info();
    prefix_ = absl::StrCat(::testing::TempDir(), "renga_split_", test->name());
    for (int64_t i = 0; i < kParts; ++i) {
      Part& part = parts_.emplace_back();
      part.metadata.Set("split.no", static_cast<uint64_t>(i));
      part.metadata.Set("split.count", static_cast<uint64_t>(kParts));
      part.metadata.Set("split.tensors.count", int64_t{4});
      part.tensors.push_back(Floats(absl::StrCat("t", i), static_cast<float>(i)));
    }
    parts_[0].metadata.Set("general.architecture", std::string("llama"));
    parts_[1].tensors.push_back(Floats("t9", 9));
  }

  ~GgufSplitTest() override {
    for (int64_t i = 0; i < kParts; ++i) std::remove(Path(i).c_str());
  }

  std::string Path(int64_t part) const {
    return absl::StrFormat("%s-%05d-of-%05d.gguf", prefix_, part + 1, kParts);
  }

  void Write() {
    for (int64_t i = 0; i < kParts; ++i) {
      const Part& part = parts_[static_cast<size_t>(i)];
      ASSERT_OK(WriteGguf(Path(i), part.metadata, part.tensors));
    }
  }

  std::string prefix_;
  std::vector<Part> parts_;
};

TEST_F(GgufSplitTest, OpensFromAnyPart) {
  Write();
  for (int64_t i = 0; i < kParts; ++i) {
    ASSERT_OK_AND_ASSIGN(const auto file, GgufFile::Open(Path(i)));
    EXPECT_THAT(file->part_paths(), ElementsAre(Path(0), Path(1), Path(2)));
    ASSERT_EQ(file->tensors().size(), 4u);
    EXPECT_NE(file->metadata().Find("general.architecture"), nullptr);
    const GgufTensor* tensor = file->FindTensor("t2");
    ASSERT_NE(tensor, nullptr);
    EXPECT_EQ(tensor->part, 2);
    const auto bytes = file->TensorBytes(*tensor);
    EXPECT_EQ(*reinterpret_cast<const float*>(bytes.data()), 2.0f);
    EXPECT_EQ(file->total_tensor_bytes(), 4 * 8);
  }
}

TEST_F(GgufSplitTest, NamesAMissingPart) {
  Write();
  std::remove(Path(1).c_str());
  EXPECT_THAT(GgufFile::Open(Path(0)),
              StatusIs(absl::StatusCode::kNotFound, HasSubstr("-00002-of-00003.gguf")));
}

TEST_F(GgufSplitTest, RefusesARenamedPart) {
  Write();
  const std::string renamed = prefix_ + "-other.gguf";
  ASSERT_EQ(std::rename(Path(1).c_str(), renamed.c_str()), 0);
  EXPECT_THAT(GgufFile::Open(renamed),
              StatusIs(absl::StatusCode::kInvalidArgument,
                       HasSubstr("this is part 2 of 3 of a split model, but its name does not end "
                                 "in -00002-of-00003.gguf")));
  std::remove(renamed.c_str());
}

TEST_F(GgufSplitTest, RefusesAPartOfAnotherNumber) {
  parts_[2].metadata.Set("split.no", uint64_t{1});
  Write();
  EXPECT_THAT(GgufFile::Open(Path(0)),
              StatusIs(absl::StatusCode::kDataLoss, HasSubstr("it says it is part 2 of 3")));
}

TEST_F(GgufSplitTest, RefusesAPartOfAnotherModel) {
  parts_[2].metadata.Set("general.architecture", std::string("qwen2"));
  Write();
  EXPECT_THAT(GgufFile::Open(Path(0)),
              StatusIs(absl::StatusCode::kDataLoss,
                       HasSubstr("-00003-of-00003.gguf: this part does not belong to the first "
                                 "one: they differ in metadata key general.architecture")));
}

TEST_F(GgufSplitTest, RefusesATensorInTwoParts) {
  parts_[2].tensors[0].name = "t0";
  Write();
  EXPECT_THAT(GgufFile::Open(Path(0)),
              StatusIs(absl::StatusCode::kDataLoss, HasSubstr("tensor t0 occurs in two parts")));
}

TEST_F(GgufSplitTest, RefusesAnotherNumberOfTensors) {
  parts_[1].tensors.pop_back();
  Write();
  EXPECT_THAT(GgufFile::Open(Path(0)),
              StatusIs(absl::StatusCode::kDataLoss,
                       HasSubstr("hold 3 tensors, but split.tensors.count says 4")));
}

TEST_F(GgufSplitTest, RefusesBadSplitKeys) {
  parts_[0].metadata.Set("split.no", uint64_t{3});
  Write();
  EXPECT_THAT(GgufFile::Open(Path(0)),
              StatusIs(absl::StatusCode::kDataLoss,
                       HasSubstr("split.no must lie between 0 and 2 but is 3")));
  GgufMetadata metadata;
  metadata.Set("split.count", uint64_t{3});
  ASSERT_OK(WriteGguf(Path(0), metadata, {}));
  EXPECT_THAT(GgufFile::Open(Path(0)),
              StatusIs(absl::StatusCode::kDataLoss, HasSubstr("split.count but no split.no")));
}

}  // namespace
}  // namespace renga::model

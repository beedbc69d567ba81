#include "model/gguf_file.h"

#include <algorithm>
#include <cctype>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <functional>
#include <limits>

#include "absl/strings/str_cat.h"
#include "base/testing/status_matchers.h"
#include "model/gguf_format.h"
#include "model/testing/gguf_image_builder.h"
#include "model/testing/random_blocks.h"

namespace renga::model {
namespace {

using ::renga::testing::IsOkAndHolds;
using ::renga::testing::StatusIs;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::Optional;
using Builder = GgufImageBuilder;

constexpr uint32_t kF32 = 0;
constexpr uint32_t kQ4_0 = 2;

absl::StatusOr<std::unique_ptr<GgufFile>> Parse(const std::string& image) {
  return GgufFile::Parse(std::as_bytes(std::span(image)));
}

uint32_t Number(GgufValueType type) { return static_cast<uint32_t>(type); }

// One tensor of 8 floats and a few keys.
Builder SmallImage() {
  Builder builder;
  builder.AddString("general.architecture", "llama").AddUint32("llama.block_count", 3);
  builder.AddTensor("a", {4, 2}, kF32, 0);
  builder.data_bytes = 32;
  return builder;
}

TEST(GgufFileTest, ReadsVersions2And3) {
  for (const uint32_t version : {2u, 3u}) {
    Builder builder = SmallImage();
    builder.version = version;
    std::string image = builder.Build();
    const float value = 1.5f;
    std::memcpy(image.data() + image.size() - 32, &value, sizeof(value));
    ASSERT_OK_AND_ASSIGN(const auto file, Parse(image));
    EXPECT_THAT(file->metadata().keys(), ElementsAre("general.architecture", "llama.block_count"));
    ASSERT_EQ(file->tensors().size(), 1u);
    const GgufTensor* tensor = file->FindTensor("a");
    ASSERT_NE(tensor, nullptr);
    EXPECT_EQ(tensor->type, base::DataType::kF32);
    EXPECT_THAT(tensor->dims, ElementsAre(4, 2));
    EXPECT_EQ(tensor->row_count(), 2);
    EXPECT_EQ(tensor->byte_size, 32);
    EXPECT_EQ(tensor->file_offset % 32, 0);
    EXPECT_EQ(file->total_tensor_bytes(), 32);
    float read = 0;
    std::memcpy(&read, file->TensorBytes(*tensor).data(), sizeof(read));
    EXPECT_EQ(read, 1.5f);
    EXPECT_EQ(file->FindTensor("b"), nullptr);
    EXPECT_TRUE(file->part_paths().empty());
  }
}

TEST(GgufFileTest, ReadsEveryScalarType) {
  Builder builder;
  builder.AddKey("u8", Number(GgufValueType::kUint8), Builder::Bytes<uint8_t>(200));
  builder.AddKey("i8", Number(GgufValueType::kInt8), Builder::Bytes<int8_t>(-100));
  builder.AddKey("u16", Number(GgufValueType::kUint16), Builder::Bytes<uint16_t>(60000));
  builder.AddKey("i16", Number(GgufValueType::kInt16), Builder::Bytes<int16_t>(-30000));
  builder.AddKey("u32", Number(GgufValueType::kUint32), Builder::Bytes<uint32_t>(4000000000));
  builder.AddKey("i32", Number(GgufValueType::kInt32), Builder::Bytes<int32_t>(-2000000000));
  builder.AddKey("u64", Number(GgufValueType::kUint64), Builder::Bytes<uint64_t>(1ull << 63));
  builder.AddKey("i64", Number(GgufValueType::kInt64), Builder::Bytes<int64_t>(-(1ll << 62)));
  builder.AddKey("f32", Number(GgufValueType::kFloat32), Builder::Bytes<float>(0.25f));
  builder.AddKey("f64", Number(GgufValueType::kFloat64), Builder::Bytes<double>(1e300));
  builder.AddKey("yes", Number(GgufValueType::kBool), Builder::Bytes<uint8_t>(1));
  builder.AddString("text", std::string("a\0b", 3));
  const std::string image = builder.Build();
  ASSERT_OK_AND_ASSIGN(const auto file, Parse(image));
  const GgufMetadata& metadata = file->metadata();
  const int64_t min = std::numeric_limits<int64_t>::min();
  const int64_t max = std::numeric_limits<int64_t>::max();
  EXPECT_THAT(metadata.GetInt("u8", min, max), IsOkAndHolds(Optional(200)));
  EXPECT_THAT(metadata.GetInt("i8", min, max), IsOkAndHolds(Optional(-100)));
  EXPECT_THAT(metadata.GetInt("u16", min, max), IsOkAndHolds(Optional(60000)));
  EXPECT_THAT(metadata.GetInt("i16", min, max), IsOkAndHolds(Optional(-30000)));
  EXPECT_THAT(metadata.GetInt("u32", min, max), IsOkAndHolds(Optional(4000000000)));
  EXPECT_THAT(metadata.GetInt("i32", min, max), IsOkAndHolds(Optional(-2000000000)));
  EXPECT_THAT(metadata.GetInt("i64", min, max), IsOkAndHolds(Optional(-(1ll << 62))));
  EXPECT_THAT(metadata.GetInt("u64", min, max),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("u64")));
  EXPECT_THAT(metadata.GetFloat("u64"), IsOkAndHolds(Optional(0x1p63)));
  EXPECT_THAT(metadata.GetFloat("f32"), IsOkAndHolds(Optional(0.25)));
  EXPECT_THAT(metadata.GetFloat("f64"), IsOkAndHolds(Optional(1e300)));
  EXPECT_THAT(metadata.GetBool("yes"), IsOkAndHolds(Optional(true)));
  EXPECT_THAT(metadata.GetString("text"), IsOkAndHolds(Optional(std::string("a\0b", 3))));
}

// An array of two elements of one type, and its values as renga stores them.
template <typename Stored, typename Wide>
void ExpectArray(GgufValueType type, Stored first, Stored second) {
  Builder builder;
  builder.AddArray("k", Number(type), 2,
                   absl::StrCat(Builder::Bytes(first), Builder::Bytes(second)));
  const std::string image = builder.Build();
  ASSERT_OK_AND_ASSIGN(const auto file, Parse(image));
  const GgufValue expected =
      GgufArray(std::vector<Wide>{static_cast<Wide>(first), static_cast<Wide>(second)});
  EXPECT_EQ(*file->metadata().Find("k"), expected) << Number(type);
}

TEST(GgufFileTest, ReadsArraysOfEveryType) {
  ExpectArray<uint8_t, uint64_t>(GgufValueType::kUint8, 1, 255);
  ExpectArray<int8_t, int64_t>(GgufValueType::kInt8, -128, 127);
  ExpectArray<uint16_t, uint64_t>(GgufValueType::kUint16, 1, 65535);
  ExpectArray<int16_t, int64_t>(GgufValueType::kInt16, -32768, 1);
  ExpectArray<uint32_t, uint64_t>(GgufValueType::kUint32, 1, 4294967295);
  ExpectArray<int32_t, int64_t>(GgufValueType::kInt32, -5, 5);
  ExpectArray<uint64_t, uint64_t>(GgufValueType::kUint64, 0, ~0ull);
  ExpectArray<int64_t, int64_t>(GgufValueType::kInt64, -1, 1);
  ExpectArray<float, double>(GgufValueType::kFloat32, -0.5f, 2.f);
  ExpectArray<double, double>(GgufValueType::kFloat64, 1e-300, 2.);
  ExpectArray<uint8_t, bool>(GgufValueType::kBool, 1, 0);
  Builder builder;
  builder.AddArray("k", Number(GgufValueType::kString), 2,
                   absl::StrCat(Builder::StringBytes("one"), Builder::StringBytes("")));
  builder.AddArray("none", Number(GgufValueType::kString), 0, "");
  const std::string image = builder.Build();
  ASSERT_OK_AND_ASSIGN(const auto file, Parse(image));
  ASSERT_OK_AND_ASSIGN(const auto* strings, file->metadata().GetStrings("k"));
  EXPECT_THAT(*strings, ElementsAre("one", ""));
  ASSERT_OK_AND_ASSIGN(const auto* none, file->metadata().GetStrings("none"));
  EXPECT_TRUE(none->empty());
}

TEST(GgufFileTest, OpensFilesWithoutTensors) {
  Builder builder;
  builder.AddString("general.architecture", "llama");
  const std::string image = builder.Build();
  ASSERT_OK_AND_ASSIGN(const auto file, Parse(image));
  EXPECT_TRUE(file->tensors().empty());
}

TEST(GgufFileTest, HonoursTheAlignmentKey) {
  Builder builder = SmallImage();
  builder.AddUint32("general.alignment", 256);
  builder.alignment = 256;
  const std::string image = builder.Build();
  ASSERT_OK_AND_ASSIGN(const auto file, Parse(image));
  EXPECT_EQ(file->tensors()[0].file_offset % 256, 0);
}

struct BadImage {
  const char* name;
  std::function<void(Builder&)> change;
  absl::StatusCode code;
  const char* text;
};

const uint64_t kHuge = ~uint64_t{0};

const BadImage kBadImages[] = {
    {"wrong magic", [](Builder& b) { b.magic = "GGML"; }, absl::StatusCode::kDataLoss,
     "begins with \"GGML\" instead of \"GGUF\""},
    {"version 1", [](Builder& b) { b.version = 1; }, absl::StatusCode::kUnimplemented,
     "GGUF version 1 is not read"},
    {"big endian", [](Builder& b) { b.version = 3u << 24; }, absl::StatusCode::kUnimplemented,
     "big endian"},
    {"absurd key count", [](Builder& b) { b.key_value_count = kHuge; }, absl::StatusCode::kDataLoss,
     "claims 18446744073709551615 metadata keys"},
    {"absurd tensor count", [](Builder& b) { b.tensor_count = 1ull << 40; },
     absl::StatusCode::kDataLoss, "claims 1099511627776 tensors"},
    {"one key too few", [](Builder& b) { b.key_value_count = 3; }, absl::StatusCode::kDataLoss, ""},
    {"absurd string length",
     [](Builder& b) { b.AddKey("k", Number(GgufValueType::kString), Builder::Bytes(kHuge)); },
     absl::StatusCode::kDataLoss, "the length of metadata key k"},
    {"string beyond the end",
     [](Builder& b) {
       b.AddKey("k", Number(GgufValueType::kString), Builder::Bytes<uint64_t>(100000));
     },
     absl::StatusCode::kDataLoss, "truncated: it ends within metadata key k"},
    {"long key", [](Builder& b) { b.AddUint32(std::string(65536, 'k'), 1); },
     absl::StatusCode::kDataLoss, "the length of a metadata key"},
    {"empty key", [](Builder& b) { b.AddUint32("", 1); }, absl::StatusCode::kDataLoss,
     "a metadata key is empty"},
    {"key twice", [](Builder& b) { b.AddUint32("llama.block_count", 3); },
     absl::StatusCode::kDataLoss, "metadata key llama.block_count occurs twice"},
    {"unknown value type", [](Builder& b) { b.AddKey("k", 13, "12345678"); },
     absl::StatusCode::kDataLoss, "metadata key k has the unknown type 13"},
    {"bad boolean", [](Builder& b) { b.AddKey("k", Number(GgufValueType::kBool), "\2"); },
     absl::StatusCode::kDataLoss, "metadata key k holds a boolean that is 2"},
    {"absurd number array",
     [](Builder& b) { b.AddArray("k", Number(GgufValueType::kUint8), kHuge, "1"); },
     absl::StatusCode::kDataLoss, "metadata key k claims 18446744073709551615 elements"},
    {"absurd string array",
     [](Builder& b) { b.AddArray("k", Number(GgufValueType::kString), 1ull << 61, "1"); },
     absl::StatusCode::kDataLoss, "metadata key k claims 2305843009213693952 strings"},
    {"array of arrays",
     [](Builder& b) { b.AddArray("k", Number(GgufValueType::kArray), 1, std::string(12, '\0')); },
     absl::StatusCode::kUnimplemented, "metadata key k is an array of arrays"},
    {"array of unknown type", [](Builder& b) { b.AddArray("k", 99, 1, "12345678"); },
     absl::StatusCode::kDataLoss, "metadata key k is an array of the unknown type 99"},
    {"alignment 0", [](Builder& b) { b.AddUint32("general.alignment", 0); },
     absl::StatusCode::kDataLoss, "general.alignment must lie between 8 and"},
    {"alignment 48", [](Builder& b) { b.AddUint32("general.alignment", 48); },
     absl::StatusCode::kDataLoss, "general.alignment is 48, not a power of two"},
    {"alignment as text", [](Builder& b) { b.AddString("general.alignment", "32"); },
     absl::StatusCode::kDataLoss, "general.alignment must be an integer"},
    {"tensor twice", [](Builder& b) { b.AddTensor("a", {1}, kF32, 32); },
     absl::StatusCode::kDataLoss, "tensor a occurs twice"},
    {"tensor without a name", [](Builder& b) { b.AddTensor("", {1}, kF32, 32); },
     absl::StatusCode::kDataLoss, "a tensor has no name"},
    {"long tensor name", [](Builder& b) { b.AddTensor(std::string(1025, 't'), {1}, kF32, 32); },
     absl::StatusCode::kDataLoss, "the length of a tensor name"},
    {"no dimensions", [](Builder& b) { b.AddTensor("b", {}, kF32, 32); },
     absl::StatusCode::kDataLoss, "tensor b has 0 dimensions"},
    {"five dimensions",
     [](Builder& b) {
       b.AddTensor("b", {1, 1, 1, 1, 1}, kF32, 32);
     },
     absl::StatusCode::kDataLoss, "tensor b has 5 dimensions"},
    {"dimension 0",
     [](Builder& b) {
       b.AddTensor("b", {4, 0}, kF32, 32);
     },
     absl::StatusCode::kDataLoss, "tensor b has a dimension of 0"},
    {"dimensions overflow",
     [](Builder& b) {
       b.AddTensor("b", {1ull << 32, 1ull << 32}, kF32, 32);
     },
     absl::StatusCode::kDataLoss, "the dimensions of tensor b multiply to more than 2^63"},
    {"bytes overflow",
     [](Builder& b) {
       b.AddTensor("b", {4, 1ull << 60}, kF32, 32);
     },
     absl::StatusCode::kDataLoss, "tensor b would take more than 2^63 bytes"},
    {"row bytes overflow", [](Builder& b) { b.AddTensor("b", {1ull << 62}, kF32, 32); },
     absl::StatusCode::kDataLoss, "tensor b: a row of"},
    {"row no multiple of the block", [](Builder& b) { b.AddTensor("b", {48}, kQ4_0, 32); },
     absl::StatusCode::kDataLoss, "tensor b: a row of Q4_0 has a multiple of 32 numbers, not 48"},
    {"type with a name", [](Builder& b) { b.AddTensor("b", {256}, 17, 32); },
     absl::StatusCode::kUnimplemented, "tensor b has type IQ2_XS (number 17)"},
    {"type without a name", [](Builder& b) { b.AddTensor("b", {256}, 12345, 32); },
     absl::StatusCode::kUnimplemented, "tensor b has type number 12345"},
    {"misaligned offset", [](Builder& b) { b.AddTensor("b", {1}, kF32, 36); },
     absl::StatusCode::kDataLoss, "tensor b is misaligned: its offset 36"},
    {"tensor beyond the end", [](Builder& b) { b.AddTensor("b", {9}, kF32, 32); },
     absl::StatusCode::kDataLoss, "truncated: tensor b needs 36 bytes at offset 32"},
    {"absurd offset", [](Builder& b) { b.AddTensor("b", {1}, kF32, kHuge - 31); },
     absl::StatusCode::kDataLoss, "truncated: tensor b needs 4 bytes"},
    {"overlap", [](Builder& b) { b.AddTensor("b", {1}, kF32, 0); }, absl::StatusCode::kDataLoss,
     "overlap"},
};

class BadImageTest : public ::testing::TestWithParam<BadImage> {};

TEST_P(BadImageTest, IsRefused) {
  Builder builder = SmallImage();
  builder.data_bytes = 64;
  ASSERT_OK(Parse(builder.Build()));
  GetParam().change(builder);
  EXPECT_THAT(Parse(builder.Build()), StatusIs(GetParam().code, HasSubstr(GetParam().text)));
}

INSTANTIATE_TEST_SUITE_P(All, BadImageTest, ::testing::ValuesIn(kBadImages),
                         [](const ::testing::TestParamInfo<BadImage>& param_info) {
                           std::string name = param_info.param.name;
                           std::replace_if(
                               name.begin(), name.end(), [](char c) { return !std::isalnum(c); },
                               '_');
                           return name;
                         });

TEST(GgufFileTest, EveryTruncationIsRefused) {
  Builder builder = SmallImage();
  builder.AddArray("words", Number(GgufValueType::kString), 1, Builder::StringBytes("w"));
  const std::string image = builder.Build();
  ASSERT_OK(Parse(image));
  for (size_t size = 0; size < image.size(); ++size) {
    // A copy of exactly this size, so that a sanitizer sees a read past its end.
    const std::string part = image.substr(0, size);
    EXPECT_THAT(Parse(part), StatusIs(absl::StatusCode::kDataLoss)) << size << " bytes";
  }
}

TEST(GgufFileTest, RefusesMetadataThatWouldNotFitInMemory) {
  // Each byte becomes a 64-bit number, so 2^27 of them are just over what metadata may take. The
  // file is a hole on disk: it is refused before its bytes are read.
  const uint64_t count = (uint64_t{1} << 27) + 1;
  Builder builder;
  builder.AddArray("k", Number(GgufValueType::kUint8), count, "");
  const std::string path = ::testing::TempDir() + "renga_large_array.gguf";
  std::ofstream(path, std::ios::binary) << builder.Build();
  std::filesystem::resize_file(path, count + 1000);
  EXPECT_THAT(GgufFile::Open(path),
              StatusIs(absl::StatusCode::kDataLoss,
                       HasSubstr("metadata key k with 134217729 elements makes the metadata")));
  std::filesystem::remove(path);
}

TEST(GgufFileTest, DamagedBytesNeverCrash) {
  Builder builder = SmallImage();
  builder.AddArray("words", Number(GgufValueType::kString), 1, Builder::StringBytes("w"));
  const std::string image = builder.Build();
  RandomSource random(7);
  for (int round = 0; round < 5000; ++round) {
    std::string damaged = image;
    for (uint64_t i = random.Next() % 4; i < 4; ++i) {
      damaged[random.Next() % damaged.size()] = static_cast<char>(random.Next());
    }
    const auto file = Parse(damaged);
    if (!file.ok()) continue;
    for (const GgufTensor& tensor : (*file)->tensors()) {
      EXPECT_EQ(static_cast<int64_t>((*file)->TensorBytes(tensor).size()), tensor.byte_size);
    }
  }
}

TEST(GgufFileTest, OpenNamesTheFile) {
  const std::string missing = ::testing::TempDir() + "renga_no_such.gguf";
  EXPECT_THAT(GgufFile::Open(missing),
              StatusIs(absl::StatusCode::kNotFound, HasSubstr("renga_no_such.gguf")));
  const std::string empty = ::testing::TempDir() + "renga_empty.gguf";
  std::ofstream(empty).close();
  EXPECT_THAT(GgufFile::Open(empty),
              StatusIs(absl::StatusCode::kDataLoss, HasSubstr("renga_empty.gguf: not a GGUF")));
  std::filesystem::remove(empty);
}

TEST(GgufMetadataTest, GettersNameTheKeyTheyRefuse) {
  GgufMetadata metadata;
  metadata.Set("text", std::string("x"));
  metadata.Set("number", uint64_t{7});
  metadata.Set("negative", int64_t{-7});
  metadata.Set("flags", GgufArray(std::vector<bool>{true}));
  metadata.Set("large", GgufArray(std::vector<uint64_t>{~0ull}));
  const auto refused = [](absl::string_view text) {
    return StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr(std::string(text)));
  };
  EXPECT_THAT(metadata.GetString("number"),
              refused("metadata key number must be a string but is an integer"));
  EXPECT_THAT(metadata.GetBool("text"),
              refused("metadata key text must be a boolean but is a string"));
  EXPECT_THAT(metadata.GetFloat("flags"),
              refused("metadata key flags must be a number but is an array of booleans"));
  EXPECT_THAT(metadata.GetInt("text", 0, 1), refused("metadata key text must be an integer"));
  EXPECT_THAT(metadata.GetInt("number", 0, 6),
              refused("metadata key number must lie between 0 and 6 but is 7"));
  EXPECT_THAT(metadata.GetInt("negative", 0, 6), refused("but is -7"));
  EXPECT_THAT(metadata.GetStrings("flags"), refused("metadata key flags must be an array of str"));
  EXPECT_THAT(metadata.GetInts("flags"), refused("metadata key flags must be an array of int"));
  EXPECT_THAT(metadata.GetInts("large"), refused("metadata key large holds a number that is too"));
  EXPECT_THAT(metadata.GetFloats("number"), refused("metadata key number must be an array"));
  EXPECT_THAT(metadata.GetString("absent"), IsOkAndHolds(std::nullopt));
  EXPECT_THAT(metadata.GetInts("absent"), IsOkAndHolds(std::nullopt));
  EXPECT_THAT(metadata.GetStrings("absent"), IsOkAndHolds(nullptr));
  metadata.Set("number", uint64_t{8});
  EXPECT_THAT(metadata.GetInt("number", 0, 9), IsOkAndHolds(Optional(8)));
  EXPECT_EQ(metadata.keys().size(), 5u);
}

}  // namespace
}  // namespace renga::model

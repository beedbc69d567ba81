#include "worker/kernels/backend_factory.h"

#include <cstdlib>
#include <map>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "base/testing/status_matchers.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "worker/kernels/cpu/cpu_backend.h"

namespace renga::kernels {
namespace {

using ::renga::testing::StatusIs;
using ::testing::Contains;
using ::testing::HasSubstr;
using ::testing::StartsWith;

constexpr char kIsa[] = "RENGA_CPU_ISA";
constexpr char kCudaPath[] = "RENGA_CUDA_PATH";

// The variable as it was is put back after each test.
class BackendFactoryTest : public ::testing::Test {
 protected:
  void SetUp() override {
    if (const char* value = std::getenv(kIsa)) old_ = value;
    unsetenv(kIsa);
  }
  void TearDown() override { old_.empty() ? unsetenv(kIsa) : setenv(kIsa, old_.c_str(), 1); }

  static std::string PathOf(const std::string& device) {
    const auto backend = CreateBackend({.device = device, .threads = 1});
    return backend.ok() ? std::string((*backend)->path_name()) : backend.status().ToString();
  }

 private:
  std::string old_;
};

TEST_F(BackendFactoryTest, EveryAvailableDeviceCanBeMadeAndNamesItsBits) {
  const std::vector<std::string> devices = AvailableDevices();
  EXPECT_THAT(devices, Contains("cpu-portable"));
  EXPECT_EQ(devices.back(), "reference");
  // Of instruction sets that give the same bits, the older one's name.
  const std::map<std::string, std::string> named_as = {{"cpu-ssse3", "cpu-avx"},
                                                       {"cpu-avxvnni", "cpu-avx2"},
                                                       {"cpu-neon-dotprod", "cpu-neon"},
                                                       {"cpu-neon-i8mm", "cpu-neon"}};
  for (const std::string& device : devices) {
    EXPECT_OK(CreateBackend({.device = device, .threads = 0}));
    const auto other = named_as.find(device);
    const std::string name = other == named_as.end() ? device : other->second;
    EXPECT_THAT(PathOf(device), StartsWith(absl::StrCat(name, "-")));
  }
}

TEST_F(BackendFactoryTest, PlainCpuIsTheBestUnlessTheEnvironmentSaysOtherwise) {
  EXPECT_EQ(PathOf("cpu"), PathOf(AvailableDevices().front()));
  setenv(kIsa, "portable", 1);
  EXPECT_EQ(PathOf("cpu"), PathOf("cpu-portable"));
  setenv(kIsa, "", 1);
  EXPECT_EQ(PathOf("cpu"), PathOf(AvailableDevices().front()));
  setenv(kIsa, "sse9", 1);
  EXPECT_THAT(CreateBackend({.device = "cpu"}),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("avx2")));
  EXPECT_OK(CreateBackend({.device = "cpu-portable"}));  // named paths do not ask
}

TEST_F(BackendFactoryTest, UnknownDevicesAndMissingPaths) {
  for (const char* device : {"", "gpu", "cpu-", "CPU", "cpu-avx3", "cuda:", "cuda0", "cuda:-1",
                             "cuda:x", "cuda:1000000000000"}) {
    EXPECT_THAT(CreateBackend({.device = device}),
                StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("cpu-portable")))
        << device;
  }
  EXPECT_THAT(CreateBackend({.threads = -1}), StatusIs(absl::StatusCode::kInvalidArgument));
  for (const CpuPath path : {CpuPath::kPortable, CpuPath::kSsse3, CpuPath::kAvx, CpuPath::kAvx2,
                             CpuPath::kAvxVnni, CpuPath::kAvx512Vnni, CpuPath::kAmx, CpuPath::kNeon,
                             CpuPath::kNeonDotprod, CpuPath::kNeonI8mm}) {
    const std::string device = absl::StrCat("cpu-", CpuPathName(path));
    const std::vector<std::string> devices = AvailableDevices();
    if (std::find(devices.begin(), devices.end(), device) != devices.end()) continue;
    EXPECT_THAT(CreateBackend({.device = device}),
                StatusIs(absl::StatusCode::kFailedPrecondition, HasSubstr(device)));
  }
}

TEST_F(BackendFactoryTest, PathsOfCards) {
  for (const char* device : {"cuda", "cuda-dp4a", "cuda-mma", "cuda-mma:1", "cuda-half:0"}) {
    EXPECT_TRUE(IsCard(device)) << device;
  }
  for (const char* device : {"cuda-", "cuda-fp16", "cuda:1-mma", "cuda-mma-dp4a", "cuda-mma1"}) {
    EXPECT_FALSE(IsCard(device)) << device;
  }
  setenv(kCudaPath, "tensor", 1);
  EXPECT_THAT(CreateBackend({.device = "cuda"}),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("dp4a, mma or half")));
  unsetenv(kCudaPath);
}

// With a card or without: a backend, or one sentence that names the way out.
TEST_F(BackendFactoryTest, ACardIsThereOrTheSentenceSaysWhatToDo) {
  for (const char* device : {"cuda", "cuda:0", "cuda:63", "cuda-dp4a", "cuda-mma", "cuda-half"}) {
    const auto backend = CreateBackend({.device = device});
    if (backend.ok()) {
      EXPECT_THAT(std::string((*backend)->path_name()), StartsWith("cuda-"));
      ASSERT_OK_AND_ASSIGN(const CardDescription card, DescribeCard(device));
      EXPECT_NE(card.name, "");
      EXPECT_GE(card.total_bytes, card.free_bytes);
    } else if (backend.status().code() != absl::StatusCode::kResourceExhausted) {
      EXPECT_THAT(backend.status(), StatusIs(absl::StatusCode::kFailedPrecondition));
    }
  }
  ASSERT_OK_AND_ASSIGN(const int64_t bytes, AvailableBytesOf("cpu"));
  EXPECT_GT(bytes, 0);
  EXPECT_THAT(DescribeCard("cpu"), StatusIs(absl::StatusCode::kInvalidArgument));
}

TEST_F(BackendFactoryTest, AutoIsACardThatWorksElseTheProcessor) {
  EXPECT_EQ(ChooseDevice("cuda:1"), "cuda:1");
  EXPECT_EQ(ChooseDevice("cpu-portable"), "cpu-portable");
  EXPECT_EQ(ChooseDevice("auto"), CreateBackend({.device = "cuda"}).ok() ? "cuda" : "cpu");
}

}  // namespace
}  // namespace renga::kernels

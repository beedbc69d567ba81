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
                                                       {"cpu-avxvnni", "cpu-avx2"}};
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
  for (const char* device : {"", "gpu", "cpu-", "CPU", "cpu-avx3"}) {
    EXPECT_THAT(CreateBackend({.device = device}),
                StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("cpu-portable")))
        << device;
  }
  EXPECT_THAT(CreateBackend({.threads = -1}), StatusIs(absl::StatusCode::kInvalidArgument));
  for (const CpuPath path : {CpuPath::kPortable, CpuPath::kSsse3, CpuPath::kAvx, CpuPath::kAvx2,
                             CpuPath::kAvxVnni, CpuPath::kAvx512Vnni}) {
    const std::string device = absl::StrCat("cpu-", CpuPathName(path));
    const std::vector<std::string> devices = AvailableDevices();
    if (std::find(devices.begin(), devices.end(), device) != devices.end()) continue;
    EXPECT_THAT(CreateBackend({.device = device}),
                StatusIs(absl::StatusCode::kFailedPrecondition, HasSubstr(device)));
  }
}

}  // namespace
}  // namespace renga::kernels

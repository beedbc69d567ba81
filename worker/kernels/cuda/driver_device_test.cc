// The card behind the driver, with a driver that is made up.
#include "worker/kernels/cuda/driver_device.h"

#include <memory>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "base/testing/status_matchers.h"
#include "worker/kernels/backend_factory.h"
#include "worker/kernels/cuda/cuda_backend.h"
#include "worker/kernels/cuda/emulation/made_up_driver.h"
#include "worker/kernels/cuda/launch_queue.h"
#include "worker/kernels/reference/reference_backend.h"

namespace renga::kernels::cuda {
namespace {

using ::renga::testing::StatusIs;
using ::testing::HasSubstr;

using emulation::MadeUpDriver;
using emulation::MadeUpImages;

emulation::MadeUpMachine& machine = emulation::ThisMachine();

class DriverDeviceTest : public ::testing::Test {
 protected:
  void SetUp() override { machine = {}; }
  void TearDown() override {
    EXPECT_EQ(machine.contexts, 0);
    EXPECT_EQ(machine.host_allocations, 0);
    EXPECT_EQ(machine.streams_and_events, 0);
    EXPECT_EQ(machine.modules, 0);
    EXPECT_EQ(machine.graphs, 0);
    EXPECT_EQ(machine.executables, 0);
    EXPECT_FALSE(machine.capturing);
    EXPECT_TRUE(machine.memory.empty());
  }
  static absl::Status OpenStatus(int ordinal = 0) {
    return OpenCard(MadeUpDriver(), ordinal, MadeUpImages()).status();
  }
};

constexpr auto kNotHere = absl::StatusCode::kFailedPrecondition;

TEST_F(DriverDeviceTest, NoDriver) {
  EXPECT_THAT(LoadDriver("libcuda-that-is-not-there.so.1"),
              StatusIs(kNotHere, HasSubstr("no NVIDIA driver")));
  // A library without the driver's functions is as good as one that is too old.
  EXPECT_THAT(LoadDriver("libc.so.6"), StatusIs(kNotHere, HasSubstr("too old")));
}

TEST_F(DriverDeviceTest, EachThingThatIsMissingHasItsSentence) {
  machine.init = kDriverNoDevice;
  EXPECT_THAT(OpenStatus(), StatusIs(kNotHere, HasSubstr("finds no card")));
  machine.init = kDriverMismatch;
  EXPECT_THAT(OpenStatus(), StatusIs(kNotHere, HasSubstr("restart the machine")));
  machine.init = 999;
  EXPECT_THAT(OpenStatus(), StatusIs(absl::StatusCode::kInternal, HasSubstr("it went wrong")));
  machine.init = kDriverSuccess;
  EXPECT_THAT(OpenStatus(2), StatusIs(kNotHere, HasSubstr("cuda:0 to cuda:1")));
  EXPECT_THAT(OpenStatus(-1), StatusIs(kNotHere));
  machine.cards = 0;
  EXPECT_THAT(OpenStatus(), StatusIs(kNotHere, HasSubstr("finds no card")));
}

TEST_F(DriverDeviceTest, CardsAndDriversThatAreTooOld) {
  EXPECT_OK(OpenStatus());
  machine.version = 11040;
  EXPECT_THAT(OpenStatus(), StatusIs(kNotHere, HasSubstr("knows CUDA 11.4")));
  machine.version = 12020;
  EXPECT_OK(OpenStatus());
  machine.major = 8;
  EXPECT_THAT(OpenStatus(), StatusIs(kNotHere, HasSubstr("needs 13.0")));
  machine.version = 13000;
  EXPECT_OK(OpenStatus());
  machine.major = 5;
  machine.minor = 2;
  EXPECT_THAT(OpenStatus(), StatusIs(kNotHere, HasSubstr("GTX Made Up is too old")));
  machine.major = 7;
  machine.minor = 0;
  EXPECT_THAT(OpenStatus(), StatusIs(kNotHere, HasSubstr("no code for the GTX Made Up")));
  // The Tensor kernels are for those cards whose code has them.
  machine.minor = 5;
  ASSERT_OK_AND_ASSIGN(const auto turing, OpenCard(MadeUpDriver(), 0, MadeUpImages()));
  EXPECT_TRUE(turing->has_tensor_kernels());
  EXPECT_FALSE(turing->has_tensor_cores());
  for (const char* name : {"NVIDIA GeForce RTX 2060 SUPER", "Quadro RTX 4000", "Tesla T4"}) {
    machine.name = name;
    ASSERT_OK_AND_ASSIGN(const auto card, OpenCard(MadeUpDriver(), 0, MadeUpImages()));
    EXPECT_TRUE(card->has_tensor_cores()) << name;
  }
  for (const char* name : {"NVIDIA GeForce GTX 1650", "Quadro T1000", "NVIDIA GeForce MX450"}) {
    machine.name = name;
    ASSERT_OK_AND_ASSIGN(const auto card, OpenCard(MadeUpDriver(), 0, MadeUpImages()));
    EXPECT_FALSE(card->has_tensor_cores()) << name;
  }
  machine.major = 8;
  machine.minor = 0;
  ASSERT_OK_AND_ASSIGN(const auto ampere, OpenCard(MadeUpDriver(), 0, MadeUpImages()));
  EXPECT_TRUE(ampere->has_tensor_cores());
  EXPECT_THAT(OpenCard(MadeUpDriver(), 0, {}),
              StatusIs(kNotHere, HasSubstr("without a CUDA compiler")));
}

TEST_F(DriverDeviceTest, MemoryThatOthersTook) {
  ASSERT_OK_AND_ASSIGN(const CardMemory memory, MemoryOfCard(MadeUpDriver(), 1));
  EXPECT_EQ(memory.free_bytes, int64_t{100} << 20);
  EXPECT_EQ(memory.total_bytes, machine.total_bytes);
  ASSERT_OK_AND_ASSIGN(const auto card, OpenCard(MadeUpDriver(), 0, MadeUpImages()));
  ASSERT_OK_AND_ASSIGN(std::byte* const first, card->Allocate(int64_t{99} << 20));
  EXPECT_THAT(card->Allocate(int64_t{2} << 20),
              StatusIs(absl::StatusCode::kResourceExhausted, HasSubstr("1.0 MiB of its 4.0 GiB")));
  ASSERT_OK_AND_ASSIGN(std::byte* const second, card->Allocate(int64_t{1} << 20));
  card->Free(first);
  card->Free(second);
  machine.context = kDriverOutOfMemory;
  EXPECT_THAT(OpenStatus(), StatusIs(absl::StatusCode::kResourceExhausted));
  machine.context = kDriverSuccess;
}

TEST_F(DriverDeviceTest, LargeCopiesComeInPiecesAndArriveWhole) {
  ASSERT_OK_AND_ASSIGN(const auto card, OpenCard(MadeUpDriver(), 0, MadeUpImages()));
  // More than all of the pinned memory, and no multiple of its pieces.
  std::vector<std::byte> bytes((size_t{9} << 20) + 12345);
  for (size_t i = 0; i < bytes.size(); ++i) bytes[i] = static_cast<std::byte>(i * 7 >> 3);
  ASSERT_OK_AND_ASSIGN(std::byte* const memory, card->Allocate(static_cast<int64_t>(bytes.size())));
  ASSERT_OK(card->Upload(bytes, memory));
  std::vector<std::byte> back(bytes.size());
  ASSERT_OK(card->Download(memory, back));
  EXPECT_TRUE(back == bytes);
  ASSERT_OK(card->Copy(memory, memory + 4096, 1000));
  ASSERT_OK(card->Download(memory, back));
  EXPECT_TRUE(std::equal(bytes.begin(), bytes.begin() + 1000, back.begin() + 4096));
  EXPECT_TRUE(std::equal(bytes.begin() + 5096, bytes.end(), back.begin() + 5096));
  EXPECT_OK(card->Upload({}, memory));
  EXPECT_OK(card->Download(memory, {}));
  card->Free(memory);
}

TEST_F(DriverDeviceTest, WhatAKernelDidWrongIsSaidWhenItIsWaitedFor) {
  ASSERT_OK_AND_ASSIGN(const auto card, OpenCard(MadeUpDriver(), 0, MadeUpImages()));
  machine.synchronize = 700;
  EXPECT_THAT(card->Synchronize(), StatusIs(absl::StatusCode::kInternal));
}

// Through the whole backend: the struct of each kernel arrives as it is.
TEST_F(DriverDeviceTest, ABackendOverTheDriverMultiplies) {
  ASSERT_OK_AND_ASSIGN(std::shared_ptr<Device> card, OpenCard(MadeUpDriver(), 0, MadeUpImages()));
  const auto run = [](Backend& backend) {
    const std::vector<float> weights = {1, 2, 3, 4, 5, 6};
    const std::vector<float> in = {1, 10, 100};
    std::vector<float> result(2);
    const auto matrix = backend.CreateMatrix(base::DataType::kF32, 2, 3);
    EXPECT_OK(matrix);
    EXPECT_OK(backend.LoadRows(**matrix, 0, std::as_bytes(std::span(weights))));
    const auto from = backend.Allocate(12);
    const auto to = backend.Allocate(8);
    EXPECT_OK(backend.Upload(std::as_bytes(std::span(in)), **from, 0));
    const LinearOutput output{.matrix = matrix->get(),
                              .bias = nullptr,
                              .out = {reinterpret_cast<float*>((*to)->data()), 1, 2, 2}};
    EXPECT_OK(
        backend.Linear({reinterpret_cast<const float*>((*from)->data()), 1, 3, 3}, {&output, 1}));
    EXPECT_OK(backend.Download(**to, 0, std::as_writable_bytes(std::span(result))));
    return result;
  };
  EXPECT_EQ(run(*CreateCudaBackend(std::move(card))), std::vector<float>({321, 654}));
}

// Runs of launches: each adds the 32 numbers behind `memory` to those before.
class LaunchQueueTest : public DriverDeviceTest {
 protected:
  void Open(bool graphs) {
    auto card = OpenCard(MadeUpDriver(), 0, MadeUpImages(), {.graphs = graphs});
    ASSERT_OK(card);
    card_ = std::move(card).value();
    const auto memory = card_->Allocate(4096);
    ASSERT_OK(memory);
    memory_ = *memory;
    Set(0, 0);
    Set(1024, 1);
  }
  void TearDown() override {
    if (card_ != nullptr) card_->Free(memory_);
    card_.reset();
    DriverDeviceTest::TearDown();
  }
  void Set(int64_t at, float value) {
    const std::vector<float> numbers(32, value);
    ASSERT_OK(card_->Upload(std::as_bytes(std::span(numbers)), memory_ + at));
  }
  // `count` launches that add what lies at 1024 to what lies at `at`.
  void Add(size_t count, int64_t at = 0) {
    const RowsArgs args = {.a = reinterpret_cast<const float*>(memory_ + 1024),
                           .a_stride = 32,
                           .b = nullptr,
                           .b_stride = 0,
                           .out = reinterpret_cast<float*>(memory_ + at),
                           .out_stride = 32,
                           .rows = 1,
                           .columns = 32};
    for (size_t i = 0; i < count; ++i) {
      ASSERT_OK(card_->Launch(Kernel::kAdd, {1, 1, 32}, std::as_bytes(std::span(&args, 1))));
    }
  }
  float Get(int64_t at = 0) {
    float value = 0;
    EXPECT_OK(card_->Download(memory_ + at, std::as_writable_bytes(std::span(&value, 1))));
    return value;
  }

  std::unique_ptr<Device> card_;
  std::byte* memory_ = nullptr;
};

TEST_F(LaunchQueueTest, ARunThatComesAgainBecomesAGraph) {
  Open(true);
  Add(40);
  EXPECT_EQ(Get(), 40);
  EXPECT_EQ(machine.plain_launches, 40);
  for (int i = 1; i <= 3; ++i) {
    Add(40);
    EXPECT_EQ(Get(), 40 + 40 * i);
    EXPECT_EQ(machine.plain_launches, 40);
    EXPECT_EQ(machine.graph_launches, i);
  }
  EXPECT_EQ(machine.made_graphs, 1);
  Add(41);  // another run
  EXPECT_EQ(Get(), 201);
  EXPECT_EQ(machine.plain_launches, 81);
  Set(128, 0);
  Add(40, 128);  // of equal length
  EXPECT_EQ(Get(128), 40);
  EXPECT_EQ(machine.plain_launches, 121);
}

TEST_F(LaunchQueueTest, ShortRunsAndCardsWithoutGraphsLaunchOneByOne) {
  Open(true);
  for (int i = 0; i < 4; ++i) {
    Add(LaunchQueue::kFewest - 1);
    ASSERT_OK(card_->Synchronize());
  }
  EXPECT_EQ(machine.made_graphs, 0);
  card_->Free(memory_);
  Open(false);
  machine.plain_launches = 0;
  for (int i = 0; i < 4; ++i) {
    Add(100);
    EXPECT_EQ(machine.plain_launches, 100 * (i + 1));  // at once
    ASSERT_OK(card_->Synchronize());
  }
  EXPECT_EQ(machine.made_graphs, 0);
}

TEST_F(LaunchQueueTest, LaunchesKeepTheirPlaceAmongCopies) {
  Open(true);
  for (int i = 0; i < 3; ++i) {
    Set(0, 0);
    Set(1024, 1);
    Add(50);
    Set(1024, 100);  // behind the launches
    Add(50);
    ASSERT_OK(card_->Copy(memory_, memory_ + 2048, 128));
    Add(1);
    EXPECT_EQ(Get(2048), 5050);
    EXPECT_EQ(Get(), 5150);
  }
  EXPECT_GT(machine.graph_launches, 0);
}

TEST_F(LaunchQueueTest, OnlySoManyGraphsAreKept) {
  Open(true);
  for (size_t extra = 0; extra < LaunchQueue::kMostGraphs + 3; ++extra) {
    for (int i = 0; i < 2; ++i) {
      Add(LaunchQueue::kFewest + extra);
      ASSERT_OK(card_->Synchronize());
    }
  }
  EXPECT_EQ(machine.made_graphs, static_cast<int>(LaunchQueue::kMostGraphs) + 3);
  EXPECT_EQ(machine.executables, static_cast<int>(LaunchQueue::kMostGraphs));
  // More launches than may wait go in two runs.
  Set(0, 0);
  Add(LaunchQueue::kMost + 10);
  EXPECT_EQ(Get(), static_cast<float>(LaunchQueue::kMost + 10));
}

TEST_F(LaunchQueueTest, WorkGoesOnWithoutGraphsWhereTheDriverMakesNone) {
  Open(true);
  machine.instantiate = 801;  // CUDA_ERROR_NOT_SUPPORTED
  for (int i = 1; i <= 4; ++i) {
    Add(40);
    EXPECT_EQ(Get(), 40 * i);
  }
  EXPECT_EQ(machine.graph_launches, 0);
  EXPECT_EQ(machine.plain_launches, 160);
}

TEST(DeviceImagesTest, WhatTheBuildMadeHasEveryKernel) {
  if (EmbeddedImages().empty()) GTEST_SKIP() << "built without a compiler for cards";
  for (const DeviceImage& image : EmbeddedImages()) {
    ASSERT_GT(image.code.size(), 1000u);
    // Fat binaries are compressed, a cubin shows its names.
    if (image.first != 61) continue;
    const std::string code(reinterpret_cast<const char*>(image.code.data()), image.code.size());
    for (const char* name : kKernelNames) EXPECT_THAT(code, HasSubstr(name));
  }
}

TEST(DeviceImagesTest, Pascal) {
  for (const DeviceImage& image : EmbeddedImages()) {
    if (image.first == 61) return;
  }
  GTEST_SKIP() << "no clang 19 with CUDA 12's headers here: deploy/install-deps --cuda";
}

}  // namespace
}  // namespace renga::kernels::cuda
